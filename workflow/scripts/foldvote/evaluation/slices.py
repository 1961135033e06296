"""Scores by slice: where the ensemble is worse than its mean says. Levels, classes, folds, formats, sizes, ages."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pandas as pd

from foldvote.data.label_space import LabelSpace
from foldvote.evaluation.group_consistency import check, level_codes, marginals
from foldvote.evaluation.metrics import SMALLEST

Codes = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
YEAR_BY_YEAR = ((27, 32), (55, 62))  # years of age around the borders of the home task, each a slice of its own
BAND = 5  # years of the other slices
MOST_SIZES = 12  # with more sizes than that, images are sliced by their shorter side
UNKNOWN = "unknown"
Z = 1.96  # two-sided 95 %


def slice_scores(rows: pd.DataFrame, probabilities: npt.NDArray[np.floating], scheme: LabelSpace) -> pd.DataFrame:
    """Every score by slice, the worst first.

    The order is that of the upper end of the Wilson interval of the accuracy (Wilson, JASA 1927), taken over persons
    as the shots of one are no independent trials: first comes what is surely bad, and not what is small.

    Args:
        rows: a row an image: image_id, profile, label (code), and of the columns fold, stratum, format, width, height
            and age_years those that are there.
        probabilities: shape (images, classes), rows sum to 1.
        scheme: the classes.

    Returns:
        Columns slice (a factor, class, stratum, fold, format, size or age_years), value, images, persons, accuracy,
        accuracy_low and accuracy_high (the interval), macro_f1 (over the classes present in the slice), log_loss
        (nats), accuracy_<factor>. The images of a slice's values add up to all images.

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
    for name, values in slices_of(rows, scheme).items():
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
    *,
    factor: str = "age",
    level: int = -1,
    years: tuple[int, int] = YEAR_BY_YEAR[-1],
) -> pd.DataFrame:
    """What the ensemble makes of the ages around a border, year by year.

    Args:
        rows: a row an image: profile, label (code), age_years.
        probabilities: shape (images, classes), rows sum to 1.
        scheme: the classes.
        factor: the factor of age bands.
        level: the first band beyond the border, -1 the last.
        years: first and last year of age to show.

    Returns:
        A row a year that occurs: age_years, images, persons, given_older (share labelled as of the older bands),
        predicted_older (share predicted so), probability_older (mean probability). Empty without ages or the factor.
    """
    columns = ["age_years", "images", "persons", "given_older", "predicted_older", "probability_older"]
    if "age_years" not in rows or factor not in scheme.factors:
        return pd.DataFrame(columns=columns)
    check(rows, probabilities, scheme)
    first = range(len(scheme.factors[factor]))[level]
    bands = marginals(probabilities, scheme, factor)
    table = pd.DataFrame(
        {
            "age_years": pd.array(rows["age_years"], dtype="Int16"),
            "image_id": np.asarray(rows["image_id"], dtype=object),
            "profile": np.asarray(rows["profile"], dtype=object),
            "given": level_codes(scheme, factor)[rows["label"].to_numpy(np.int64)] >= first,
            "predicted": bands.argmax(axis=1) >= first,
            "probability": bands[:, first:].sum(axis=1),
        }
    )
    shown = table[table["age_years"].between(*years).fillna(False)].sort_values("image_id").groupby("age_years")
    return shown.agg(
        images=("given", "size"),
        persons=("profile", "nunique"),
        given_older=("given", "mean"),
        predicted_older=("predicted", "mean"),
        probability_older=("probability", "mean"),
    ).reset_index()[columns]


def slices_of(rows: pd.DataFrame, scheme: LabelSpace) -> dict[str, npt.NDArray[np.object_]]:
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
    if "age_years" in rows:
        values["age_years"] = _ages(rows["age_years"])
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


def _ages(column: pd.Series, single: Sequence[tuple[int, int]] = YEAR_BY_YEAR) -> npt.NDArray[np.object_]:
    """`58`, or a band such as `35-39` that ends where the years that are shown one by one begin."""
    years = pd.to_numeric(column, errors="coerce").astype("Float64")
    known, place = np.unique(years.to_numpy(dtype=float, na_value=-1.0), return_inverse=True)
    return np.array([_age_slice(int(np.floor(year)), single) for year in known], dtype=object)[place.reshape(-1)]


def _age_slice(year: int, single: Sequence[tuple[int, int]]) -> str:
    if year < 0:
        return UNKNOWN
    if any(low <= year <= high for low, high in single):
        return f"{year:02d}"
    first = year - year % BAND
    last = first + BAND - 1
    for low, high in single:
        last = min(last, low - 1) if year < low else last
        first = max(first, high + 1) if year > high else first
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
