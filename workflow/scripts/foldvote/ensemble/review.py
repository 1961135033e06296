"""Which images a person should look at: sets of classes with a stated coverage, and what to hand to a person.

The sets are calibrated on the reserve, which the submitted vote predicts as it predicts test images. Without a reserve
they are calibrated on out-of-fold predictions.
"""

import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from foldvote.data.label_space import LabelSpace, read_label_space
from foldvote.ensemble.group_parts import outer_folds
from foldvote.ensemble.vote_rows import NO_GROUPS, VoteRows, groups_of_manifest, groups_of_split, read_vote_rows
from foldvote.evaluation.abstention import NONE, Answers, keep_best, keep_from
from foldvote.evaluation.bootstrap import draw_totals
from foldvote.evaluation.conformal import Covers, least_probability
from foldvote.evaluation.intervals import interval
from foldvote.evaluation.slices import slices_of, wilson
from foldvote.io.csv_files import write_csv
from foldvote.io.files import write_json

Array = npt.NDArray[np.float64]
Codes = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]
ACCURACIES = (0.8, 0.9, 0.95, 0.99)
ANSWERS: tuple[Answers, ...] = ("kept", "all")
SHARES = tuple(step / 10 for step in range(10))
DECIMALS = 6
RESERVE, OOF = "reserve", "out-of-fold predictions"
_NOTES = {
    RESERVE: "calibrated on the reserve, which the submitted vote predicts as it predicts test images",
    OOF: "calibrated on out-of-fold predictions, which come from fewer members than predictions of test images: the "
    "mean of more members is more often right, so the sets of test images usually contain the truth more often than "
    "wanted; folds.reserve would measure it",
    None: "there are no test images: the list is of training images, whose sets are calibrated on out-of-fold "
    "predictions of other groups",
}


@dataclass(frozen=True)
class ReviewInputs:
    """What the review reads.

    Attributes:
        oof: ensemble/oof.parquet.
        folds: the split, for the groups.
        classes: data/classes.json.
        reserve: ensemble/reserve.parquet; None where there is no reserve.
        test: ensemble/test.parquet; None where there is no test set.
        manifest: the manifest of the test images, for their groups if these are known.
    """

    oof: Path
    folds: Path
    classes: Path
    reserve: Path | None = None
    test: Path | None = None
    manifest: Path | None = None


@dataclass(frozen=True)
class ReviewFiles:
    """What the review writes.

    Attributes:
        review: ensemble/review.csv, one row per test image, the most doubtful group first; of out-of-fold images where
            there is no test set.
        coverage: ensemble/coverage.json.
        slices: ensemble/coverage.csv, coverage and size of the sets by slice.
    """

    review: Path
    coverage: Path
    slices: Path


def write_review(
    inputs: ReviewInputs, files: ReviewFiles, coverage: float, covers: Covers, draws: int, seed: int
) -> None:
    """Calibrate the sets, measure them on groups that they were not calibrated on, and list the images to look at.

    Args:
        inputs: the files that are read.
        files: the files that are written.
        coverage: the wanted probability that a set contains the true class.
        covers: of what, as in `foldvote.evaluation.conformal.least_probability`.
        draws: bootstrap draws of groups for every interval.
        seed: the run's seed.

    Raises:
        UserError: if a file is missing or damaged, or an image is not part of the split.
    """
    label_space, groups = read_label_space(inputs.classes), groups_of_split(inputs.folds)
    known = read_vote_rows(inputs.reserve or inputs.oof, label_space, groups, labelled=True)
    parts = _parts(known, seed)
    crossed = _cross_fit(known, parts, coverage, covers)
    sizes, covered = known.sizes(crossed), (known.own >= crossed) | known.right
    handed_over = _handed_over(known, parts, draws, seed)
    least = least_probability(known.own, known.right, known.groups, coverage, covers)
    if inputs.test:
        of_test = groups_of_manifest(inputs.manifest) if inputs.manifest else NO_GROUPS
        listed = read_vote_rows(inputs.test, label_space, of_test, labelled=False)
        listing = _listing(listed, least)
    elif inputs.reserve:
        listed = read_vote_rows(inputs.oof, label_space, groups, labelled=True)
        listing = _listing(listed, _cross_fit(listed, _parts(listed, seed), coverage, covers))
    else:
        listed, listing = known, _listing(known, crossed)
    for row in handed_over:
        below = np.inf if row["confidence"] is None else row["confidence"]
        # A threshold for the vote of all members says nothing about images that single members predicted.
        comparable = inputs.test or not inputs.reserve
        row["listed"] = int((listed.confidence < below).sum()) if comparable else None
    source, count = RESERVE if inputs.reserve else OOF, int(known.groups.max()) + 1
    found = {
        "wanted": coverage,
        "covers": covers,
        "source": source,
        "note": _NOTES[source if inputs.test else None],
        "images": len(known.own),
        "groups": count,
        "highest": round(count / (count + 1), DECIMALS),
        "least_probability": least,
        **_measured(known, covered, sizes, draws, seed),
        "handed_over": handed_over,
        "curve": _curve(known, draws, seed),
        "listed": {
            "images": len(listing),
            "set_size": round(float(listing["size"].mean()), DECIMALS),
            "single": round(float((listing["size"] == 1).mean()), DECIMALS),
        },
    }
    write_csv(_by_slice(known, covered, sizes, label_space).round(DECIMALS), files.slices)
    write_csv(listing.round(DECIMALS), files.review)
    write_json(files.coverage, found)


def _parts(rows: VoteRows, seed: int) -> Codes:
    """The part of each image: its fold; for the reserve, or images of one fold, one of five parts of whole groups."""
    if not rows.groups.any():
        return np.zeros(len(rows.groups), np.int64)  # a single group, for which nothing can be fitted
    return outer_folds(rows.folds, rows.groups, seed)


def _cross_fit(rows: VoteRows, parts: Codes, coverage: float, covers: Covers) -> Array:
    """The least probability for each image, calibrated on the other parts: float64 (images,)."""
    least = np.empty(len(parts))
    for part in np.unique(parts):
        out = parts == part
        least[out] = least_probability(rows.own[~out], rows.right[~out], rows.groups[~out], coverage, covers)
    return least


def _measured(rows: VoteRows, covered: Bools, sizes: Codes, draws: int, seed: int) -> dict[str, Any]:
    """Coverage and size of the sets for a random image of a group, and coverage of whole groups, with intervals."""
    images = rows.by_group(np.ones(len(covered)))
    means = {
        "image_coverage": rows.by_group(covered) / images,
        "group_coverage": (rows.by_group(~covered) == 0).astype(float),
        "set_size": rows.by_group(sizes) / images,
        "single": rows.by_group(sizes == 1) / images,
    }
    return _ratios({name: (values, np.ones(len(images))) for name, values in means.items()}, draws, seed)


def _handed_over(rows: VoteRows, parts: Codes, draws: int, seed: int) -> list[dict[str, Any]]:
    """For each wanted accuracy the confidence below which a person is asked, and what that gives on other groups."""
    found, images = [], rows.by_group(np.ones(len(parts)))
    for answers, accuracy in itertools.product(ANSWERS, ACCURACIES):
        kept = np.empty(len(parts), bool)
        for part in np.unique(parts):
            out = parts == part
            kept[out] = rows.confidence[out] >= _keep_from(rows, ~out, accuracy, answers)
        right = (rows.by_group(kept & rows.right), rows.by_group(kept))
        if answers == "all":
            right = (rows.by_group(~kept | rows.right), images)
        threshold = _keep_from(rows, np.ones(len(parts), bool), accuracy, answers)
        row = {"wanted": accuracy, "of": answers, "confidence": threshold if threshold < NONE else None}
        found.append(row | _ratios({"share": (rows.by_group(~kept), images), "accuracy": right}, draws, seed))
    return found


def _keep_from(rows: VoteRows, some: Bools, accuracy: float, answers: Answers) -> float:
    """The threshold that some of the rows give, as in `keep_from`."""
    groups = len(np.unique(rows.groups[some]))
    return keep_from(rows.confidence[some], rows.right[some], groups, accuracy, answers)


def _curve(rows: VoteRows, draws: int, seed: int) -> list[dict[str, Any]]:
    """Accuracy of the answers that are left when the least confident share of all is handed over."""
    kept = [rows.confidence >= keep_best(rows.confidence, share) for share in SHARES]
    pairs = {str(number): (rows.by_group(own & rows.right), rows.by_group(own)) for number, own in enumerate(kept)}
    ratios = _ratios(pairs, draws, seed)
    return [
        {"share": round(1 - float(own.mean()), DECIMALS)}
        | {f"accuracy{end}": ratios[f"{number}{end}"] for end in ("", "_low", "_high")}
        for number, own in enumerate(kept)
    ]


def _ratios(pairs: Mapping[str, tuple[Array, Array]], draws: int, seed: int) -> dict[str, Any]:
    """Ratios of sums over groups with intervals: {name: value, name_low: low, name_high: high}; None for 0 / 0.

    Args:
        pairs: by name the sums of each group, above and below the line, shape (groups,) each.
        draws: number of draws.
        seed: the run's seed.
    """
    totals = draw_totals(np.column_stack([column for pair in pairs.values() for column in pair]), draws, seed)
    found: dict[str, Any] = {}
    for number, (name, (above, below)) in enumerate(pairs.items()):
        drawn = totals[:, 2 * number : 2 * number + 2]
        drawn = drawn[drawn[:, 1] > 0]
        values = [above.sum() / below.sum(), *interval(drawn[:, 0] / drawn[:, 1])] if len(drawn) else [None] * 3
        for end, value in zip(("", "_low", "_high"), values, strict=True):
            found[name + end] = None if value is None else round(float(value), DECIMALS)
    return found


def _by_slice(rows: VoteRows, covered: Bools, sizes: Codes, label_space: LabelSpace) -> pd.DataFrame:
    """Coverage and size of the sets by class, level of a factor and fold, the worst slice first.

    Each image weighs 1 / (number of images of its group), as in the calibration, so that the coverage of all images is
    the weighted mean of those of a slice's values. Wilson intervals over groups, as in slices.csv.
    """
    images = rows.by_group(np.ones(len(covered)))
    weights = 1 / images[rows.groups]
    described = pd.DataFrame({"label": rows.labels} | ({"fold": rows.folds} if (rows.folds >= 0).all() else {}))
    tables = []
    for name, values in slices_of(described, label_space).items():
        part, names = pd.factorize(values, sort=True)
        total = np.bincount(part, weights)
        met = np.unique(part * len(images) + rows.groups) // len(images)  # each group once in each part
        table = pd.DataFrame({"slice": name, "value": np.asarray(names, dtype=object)})
        table["images"], table["persons"] = np.bincount(part), np.bincount(met)
        table["coverage"] = np.minimum(np.bincount(part, weights * covered) / total, 1)
        ends = wilson(table["coverage"].to_numpy(), table["persons"].to_numpy())
        table["coverage_low"], table["coverage_high"] = ends
        table["set_size"] = np.bincount(part, weights * sizes) / total
        table["single"] = np.bincount(part, weights * (sizes == 1)) / total
        tables.append(table)
    found = pd.concat(tables, ignore_index=True)
    return found.sort_values(["coverage_high", "coverage", "slice", "value"], ignore_index=True)


def _listing(rows: VoteRows, least: Array | float) -> pd.DataFrame:
    """The rows of review.csv: the images of a group together, the group with the most doubt per image first."""
    doubt = 1 - rows.confidence
    of_group = rows.by_group(doubt) / rows.by_group(np.ones(len(doubt)))
    order = np.lexsort((-doubt, rows.groups, -of_group[rows.groups]))
    return pd.DataFrame(
        {
            "rank": np.arange(1, len(order) + 1),
            "image_id": rows.ids.take(order).to_pylist(),
            "group": rows.group_names.take(order).to_pylist(),
            "prediction": rows.names[rows.predicted[order]],
            "confidence": rows.confidence[order],
            "set": rows.texts(least)[order],
            "size": rows.sizes(least)[order],
        }
    )
