"""Scores by slice: by factor level, class, fold, file format, image size and number, such as age in years."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from foldvote.config.layout_facts import NumericFactor
from foldvote.data.label_space import LabelSpace
from foldvote.evaluation.group_consistency import check, level_codes, marginals
from foldvote.evaluation.metric_registry import Answers, Metric
from foldvote.evaluation.metrics import SMALLEST

Codes = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
BAND = 5  # numbers in one slice, such as years of age, outside the ranges that are shown number by number
MOST_SIZES = 12  # with more image sizes than this, images are sliced by their shorter side
UNKNOWN = "unknown"
Z = 1.96  # two-sided 95 %


def slice_scores(
    rows: pd.DataFrame,
    probabilities: npt.NDArray[np.floating],
    label_space: LabelSpace,
    numeric: NumericFactor | None = None,
    metric: Metric | None = None,
) -> pd.DataFrame:
    """Compute every score for every slice, the worst slice first.

    Slices are sorted by the upper end of the Wilson interval of their accuracy (Wilson, JASA 1927), so that a slice
    that is certainly bad comes before one that is only small. The interval counts groups, not images, because the
    shots of one person are not independent trials.

    Args:
        rows: one row per image: image_id, profile, label (code). Optional columns: fold, stratum, format, width,
            height, the column of `numeric`, and group; without it each profile is a group.
        probabilities: shape (images, classes), rows sum to 1.
        label_space: the classes.
        numeric: the factor that bins a number, such as age; None if there is none.
        metric: scored in addition, in a column of its own name; None: nothing.

    Returns:
        Columns slice (a factor, class, stratum, fold, format, size or the numeric column), value, images, persons,
        accuracy, accuracy_low and accuracy_high (the interval), macro_f1 (over the classes present in the slice),
        log_loss (nats), accuracy_<factor>, and that of `metric`, empty for a slice for which it is not defined, such as
        an AUC for images of one class. The values of one slice cover every image exactly once.

    Raises:
        ValueError: if the shapes do not match.
    """
    check(rows, probabilities, label_space)
    order = pc.sort_indices(pa.array(rows["image_id"], pa.string())).to_numpy()  # sums must not depend on that of rows
    rows, wide = rows.iloc[order].reset_index(drop=True), np.asarray(probabilities, np.float64)
    labels, predicted = rows["label"].to_numpy(np.int64), wide.argmax(axis=1)[order]
    own = np.clip(wide[order, labels], SMALLEST, 1.0)
    means = {"accuracy": (labels == predicted).astype(float), "log_loss": -np.log(own)}
    for factor in label_space.factors:
        level = marginals(wide, label_space, factor).argmax(axis=1)[order]
        right = level == level_codes(label_space, factor)[labels]
        means[f"accuracy_{factor}"] = right.astype(float)
    person, _ = pd.factorize(rows["profile"])
    group, _ = pd.factorize(rows["group" if "group" in rows else "profile"])
    tables = []
    for name, values in slices_of(rows, label_space, numeric).items():
        part, names = pd.factorize(values, sort=True)
        sizes = np.bincount(part, minlength=len(names))
        table = pd.DataFrame({"slice": name, "value": np.asarray(names, dtype=object), "images": sizes})
        table["persons"], table["groups"] = (_persons(part, unit, len(names)) for unit in (person, group))
        for score, of_image in means.items():
            table[score] = np.bincount(part, of_image, len(names)) / sizes
        table["macro_f1"] = _present_f1(part, labels, predicted, len(names), len(label_space.classes))
        if metric is not None and metric.name not in table:
            parts = [np.flatnonzero(part == place) for place in range(len(names))]
            answers = [Answers.of(labels[own], wide[order[own]]) for own in parts]
            table[metric.name] = [metric.value_or_nan(own, label_space) for own in answers]
        tables.append(table)
    scores = pd.concat(tables, ignore_index=True)
    scores["accuracy_low"], scores["accuracy_high"] = wilson(scores["accuracy"].to_numpy(), scores["groups"].to_numpy())
    first = ["slice", "value", "images", "persons", "accuracy", "accuracy_low", "accuracy_high", "macro_f1", "log_loss"]
    last = [] if metric is None or metric.name in first else [metric.name]
    scores = scores[first + [f"accuracy_{factor}" for factor in label_space.factors] + last]
    return scores.sort_values(["accuracy_high", "accuracy", "slice", "value"], ignore_index=True)


def border_table(
    rows: pd.DataFrame,
    probabilities: npt.NDArray[np.floating],
    label_space: LabelSpace,
    numeric: NumericFactor | None,
    *,
    level: int = -1,
) -> pd.DataFrame:
    """Compare given and predicted levels around a border of bands, number by number, such as for each year of age.

    Args:
        rows: one row per image: image_id, profile, label (code), and the column of `numeric`.
        probabilities: shape (images, classes), rows sum to 1.
        label_space: the classes.
        numeric: the factor whose levels are bands of a number; the last of its `detail` ranges is shown. May be None.
        level: position of the first band above the border; -1 for the last band.

    Returns:
        One row per number that occurs: the numeric column, images, persons, given_older (share of images labelled as
        above the border), predicted_older (share predicted as above it), probability_older (mean probability of being
        above it). Empty if `rows` or the classes have no such column or factor.
    """
    scores = ["images", "persons", "given_older", "predicted_older", "probability_older"]
    if numeric is None or not numeric.detail or numeric.column not in rows or numeric.name not in label_space.factors:
        return pd.DataFrame(columns=scores)
    factor, number = numeric.name, numeric.column
    check(rows, probabilities, label_space)
    first = range(len(label_space.factors[factor]))[level]
    bands = marginals(probabilities, label_space, factor)
    table = pd.DataFrame(
        {
            number: pd.array(rows[number], dtype="Int16"),
            "image_id": np.asarray(rows["image_id"], dtype=object),
            "profile": np.asarray(rows["profile"], dtype=object),
            "given": level_codes(label_space, factor)[rows["label"].to_numpy(np.int64)] >= first,
            "predicted": bands.argmax(axis=1) >= first,
            "probability": bands[:, first:].sum(axis=1),
        }
    )
    shown = table[table[number].between(*numeric.detail[-1]).fillna(False)].sort_values("image_id").groupby(number)
    return shown.agg(
        images=("given", "size"),
        persons=("profile", "nunique"),
        given_older=("given", "mean"),
        predicted_older=("predicted", "mean"),
        probability_older=("probability", "mean"),
    ).reset_index()[[number, *scores]]


def slices_of(
    rows: pd.DataFrame, label_space: LabelSpace, numeric: NumericFactor | None = None
) -> dict[str, npt.NDArray[np.object_]]:
    """The value of every image in each slice that the columns allow.

    Args:
        rows: one row per image: label (code); optional columns as in `slice_scores`.
        label_space: the classes.
        numeric: the factor that bins a number; None if there is none.

    Returns:
        By the name of the slice an array of strings, shape (images,).
    """
    labels = rows["label"].to_numpy(np.int64)
    values = {
        factor: np.array(levels, dtype=object)[label_space.level_codes(factor)[labels]]
        for factor, levels in label_space.factors.items()
    }
    values["class"] = np.array(label_space.classes, dtype=object)[labels]
    values |= {name: _texts(rows[name]) for name in ("stratum", "fold", "format") if name in rows}
    if {"width", "height"} <= set(rows.columns):
        values["size"] = _sizes(rows["width"].to_numpy(np.int64), rows["height"].to_numpy(np.int64))
    if numeric is not None and numeric.column in rows:
        values[numeric.column] = _numbers(rows[numeric.column], numeric.detail)
    return values


def wilson(share: Floats, trials: npt.NDArray[np.integer], z: float = Z) -> tuple[Floats, Floats]:
    """Lower and upper end of the Wilson interval of each share: two float64 arrays of the same shape.

    Args:
        share: shares in 0..1.
        trials: number of independent trials behind each share, at least one.
        z: quantile of the normal distribution.
    """
    middle = (share + z * z / (2 * trials)) / (1 + z * z / trials)
    half = z / (1 + z * z / trials) * np.sqrt(share * (1 - share) / trials + z * z / (4 * trials * trials))
    return np.clip(middle - half, 0, 1), np.clip(middle + half, 0, 1)


def _texts(column: pd.Series) -> npt.NDArray[np.object_]:
    return column.astype("string").fillna(UNKNOWN).to_numpy(dtype=object)


def _sizes(width: Codes, height: Codes) -> npt.NDArray[np.object_]:
    """Sizes as text: `384x512`, or with many sizes the power-of-two range of the shorter side, as `side 256-511`."""
    both, size = np.unique(np.stack([width, height], axis=1), axis=0, return_inverse=True)
    if len(both) <= MOST_SIZES:
        return np.array([f"{wide}x{high}" for wide, high in both], dtype=object)[size.reshape(-1)]
    octave, part = np.unique(np.log2(both.min(axis=1)).astype(np.int64), return_inverse=True)
    return np.array([f"side {2**low}-{2 ** (low + 1) - 1}" for low in octave], dtype=object)[part[size.reshape(-1)]]


def _numbers(column: pd.Series, single: Sequence[tuple[int, int]]) -> npt.NDArray[np.object_]:
    """Numbers as text: `58` inside the ranges `single`, otherwise a band such as `35-39` that stops at these ranges."""
    numbers = pd.to_numeric(column, errors="coerce").astype("Float64")
    known, place = np.unique(numbers.to_numpy(dtype=float, na_value=-1.0), return_inverse=True)
    return np.array([_number_slice(int(np.floor(number)), single) for number in known], dtype=object)[place.reshape(-1)]


def _number_slice(number: int, single: Sequence[tuple[int, int]]) -> str:
    if number < 0:
        return UNKNOWN
    if any(low <= number <= high for low, high in single):
        return f"{number:02d}"
    first = number - number % BAND
    last = first + BAND - 1
    for low, high in single:
        last = min(last, low - 1) if number < low else last
        first = max(first, high + 1) if number > high else first
    return f"{first:02d}-{last:02d}" if last > first else f"{first:02d}"


def _persons(part: Codes, person: Codes, parts: int) -> Codes:
    """Number of distinct persons in each part: shape (parts,)."""
    number = int(person.max()) + 1 if len(person) else 1
    return np.bincount(np.unique(part.astype(np.int64) * number + person) // number, minlength=parts)


def _present_f1(part: Codes, labels: Codes, predicted: Codes, parts: int, classes: int) -> Floats:
    """Mean F1 over the classes that are present in each part: shape (parts,)."""

    def counted(codes: Codes, kept: npt.NDArray[np.bool_] | slice = slice(None)) -> Codes:
        return np.bincount((part * classes + codes)[kept], minlength=parts * classes).reshape(parts, classes)

    support, chosen, hits = counted(labels), counted(predicted), counted(labels, labels == predicted)
    f1 = 2 * hits / np.maximum(support + chosen, 1)
    return np.where(support > 0, f1, 0).sum(axis=1) / np.maximum((support > 0).sum(axis=1), 1)
