"""Scores by slice: where the ensemble is worse than its mean says. Levels, classes, folds, formats, sizes, numbers."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pandas as pd

from foldvote.config.data import NumericFactor
from foldvote.data.label_space import LabelSpace
from foldvote.evaluation.group_consistency import check, level_codes, marginals
from foldvote.evaluation.metrics import SMALLEST

Codes = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
BAND = 5  # numbers of a slice, such as years, where they are not shown one by one
MOST_SIZES = 12  # with more sizes than that, images are sliced by their shorter side
UNKNOWN = "unknown"
Z = 1.96  # two-sided 95 %


def slice_scores(
    rows: pd.DataFrame,
    probabilities: npt.NDArray[np.floating],
    scheme: LabelSpace,
    numeric: NumericFactor | None = None,
) -> pd.DataFrame:
    """Every score by slice, the worst first.

    The order is that of the upper end of the Wilson interval of the accuracy (Wilson, JASA 1927), taken over persons
    as the shots of one are no independent trials: first comes what is surely bad, and not what is small.

    Args:
        rows: one row per image: image_id, profile, label (code), and of the columns fold, stratum, format, width,
            height and that of `numeric` those that are there.
        probabilities: shape (images, classes), rows sum to 1.
        scheme: the classes.
        numeric: the factor with a number behind it, where there is one.

    Returns:
        Columns slice (a factor, class, stratum, fold, format, size or the numeric column), value, images, persons,
        accuracy, accuracy_low and accuracy_high (the interval), macro_f1 (over the classes present in the slice),
        log_loss (nats), accuracy_<factor>. The images of a slice's values add up to all images.

    Raises:
        ValueError: if the shapes do not go together.
    """
    check(rows, probabilities, scheme)
    order = np.argsort(np.asarray(rows["image_id"], dtype=object), kind="stable")  # sums do not depend on the order
    rows, wide = rows.iloc[order].reset_index(drop=True), np.asarray(probabilities, np.float64)[order]
    labels, predicted = rows["label"].to_numpy(np.int64), wide.argmax(axis=1)
    own = np.clip(wide[np.arange(len(rows)), labels], SMALLEST, 1.0) if len(rows) else np.zeros(0)
    means = {"accuracy": (labels == predicted).astype(float), "log_loss": -np.log(own)}
    for factor in scheme.factors:
        right = marginals(wide, scheme, factor).argmax(axis=1) == level_codes(scheme, factor)[labels]
        means[f"accuracy_{factor}"] = right.astype(float)
    person, _ = pd.factorize(rows["profile"])
    tables = []
    for name, values in slices_of(rows, scheme, numeric).items():
        part, names = pd.factorize(values, sort=True)
        sizes = np.bincount(part, minlength=len(names))
        table = pd.DataFrame({"slice": name, "value": np.asarray(names, dtype=object), "images": sizes})
        table["persons"] = _persons(part, person, len(names))
        for score, of_image in means.items():
            table[score] = np.bincount(part, of_image, len(names)) / sizes
        table["macro_f1"] = _present_f1(part, labels, predicted, len(names), len(scheme.classes))
        tables.append(table)
    scores = pd.concat(tables, ignore_index=True)
    scores["accuracy_low"], scores["accuracy_high"] = wilson(
        scores["accuracy"].to_numpy(), scores["persons"].to_numpy()
    )
    first = ["slice", "value", "images", "persons", "accuracy", "accuracy_low", "accuracy_high", "macro_f1", "log_loss"]
    scores = scores[first + [f"accuracy_{factor}" for factor in scheme.factors]]
    return scores.sort_values(["accuracy_high", "accuracy", "slice", "value"], ignore_index=True)


def border_table(
    rows: pd.DataFrame,
    probabilities: npt.NDArray[np.floating],
    scheme: LabelSpace,
    numeric: NumericFactor | None,
    *,
    level: int = -1,
) -> pd.DataFrame:
    """What the ensemble makes of the images around a border of bands, number by number, such as year by year of age.

    Args:
        rows: one row per image: image_id, profile, label (code), and the column of `numeric`.
        probabilities: shape (images, classes), rows sum to 1.
        scheme: the classes.
        numeric: the factor of bands; the last of its ranges of detail is shown.
        level: the first band beyond the border, -1 the last.

    Returns:
        One row per number that occurs: the numeric column, images, persons, given_older (share labelled as of the
        bands beyond the border), predicted_older (share predicted so), probability_older (mean probability). Empty
        without the numbers or the factor.
    """
    scores = ["images", "persons", "given_older", "predicted_older", "probability_older"]
    if numeric is None or not numeric.detail or numeric.column not in rows or numeric.name not in scheme.factors:
        return pd.DataFrame(columns=scores)
    factor, number = numeric.name, numeric.column
    check(rows, probabilities, scheme)
    first = range(len(scheme.factors[factor]))[level]
    bands = marginals(probabilities, scheme, factor)
    table = pd.DataFrame(
        {
            number: pd.array(rows[number], dtype="Int16"),
            "image_id": np.asarray(rows["image_id"], dtype=object),
            "profile": np.asarray(rows["profile"], dtype=object),
            "given": level_codes(scheme, factor)[rows["label"].to_numpy(np.int64)] >= first,
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
    rows: pd.DataFrame, scheme: LabelSpace, numeric: NumericFactor | None = None
) -> dict[str, npt.NDArray[np.object_]]:
    """The value of every image in every slicing that the columns allow: texts, shape (images,) each."""
    labels = rows["label"].to_numpy(np.int64)
    values = {
        factor: np.array(levels, dtype=object)[scheme.level_codes(factor)[labels]]
        for factor, levels in scheme.factors.items()
    }
    values["class"] = np.array(scheme.classes, dtype=object)[labels]
    values |= {name: _texts(rows[name]) for name in ("stratum", "fold", "format") if name in rows}
    if {"width", "height"} <= set(rows.columns):
        values["size"] = _sizes(rows["width"].to_numpy(np.int64), rows["height"].to_numpy(np.int64))
    if numeric is not None and numeric.column in rows:
        values[numeric.column] = _numbers(rows[numeric.column], numeric.detail)
    return values


def wilson(share: Floats, trials: npt.NDArray[np.integer], z: float = Z) -> tuple[Floats, Floats]:
    """Lower and upper end of the Wilson interval of shares: float64 arrays of their shape.

    Args:
        share: shares in 0..1.
        trials: how many independent trials each comes from, at least one.
        z: quantile of the normal distribution.
    """
    middle = (share + z * z / (2 * trials)) / (1 + z * z / trials)
    half = z / (1 + z * z / trials) * np.sqrt(share * (1 - share) / trials + z * z / (4 * trials * trials))
    return np.clip(middle - half, 0, 1), np.clip(middle + half, 0, 1)


def _texts(column: pd.Series) -> npt.NDArray[np.object_]:
    return column.astype("string").fillna(UNKNOWN).to_numpy(dtype=object)


def _sizes(width: Codes, height: Codes) -> npt.NDArray[np.object_]:
    """`384x512`, or where there are many sizes the octave of the shorter side, such as `side 256-511`."""
    both, size = np.unique(np.stack([width, height], axis=1), axis=0, return_inverse=True)
    if len(both) <= MOST_SIZES:
        return np.array([f"{wide}x{high}" for wide, high in both], dtype=object)[size.reshape(-1)]
    octave, part = np.unique(np.log2(both.min(axis=1)).astype(np.int64), return_inverse=True)
    return np.array([f"side {2**low}-{2 ** (low + 1) - 1}" for low in octave], dtype=object)[part[size.reshape(-1)]]


def _numbers(column: pd.Series, single: Sequence[tuple[int, int]]) -> npt.NDArray[np.object_]:
    """`58`, or a range such as `35-39` that ends where the numbers that are shown one by one begin."""
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
    """Number of different persons in each part: shape (parts,)."""
    number = int(person.max()) + 1 if len(person) else 1
    return np.bincount(np.unique(part.astype(np.int64) * number + person) // number, minlength=parts)


def _present_f1(part: Codes, labels: Codes, predicted: Codes, parts: int, classes: int) -> Floats:
    """Mean F1 over the classes that are present in each part: shape (parts,)."""

    def counted(codes: Codes, kept: npt.NDArray[np.bool_] | slice = slice(None)) -> Codes:
        return np.bincount((part * classes + codes)[kept], minlength=parts * classes).reshape(parts, classes)

    support, chosen, hits = counted(labels), counted(predicted), counted(labels, labels == predicted)
    f1 = 2 * hits / np.maximum(support + chosen, 1)
    return np.where(support > 0, f1, 0).sum(axis=1) / np.maximum((support > 0).sum(axis=1), 1)
