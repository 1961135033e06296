"""How sure a score is: a bootstrap over persons, not images.

Photographs of one person succeed and fail together, so an interval that draws images is too narrow. Here whole groups
are drawn with replacement (Efron, "Bootstrap Methods: Another Look at the Jackknife", 1979; for groups Field and
Welsh, "Bootstrapping clustered data", JRSS B 2007, the randomised cluster bootstrap).

Every score is a function of sums over images. A row of a leaderboard is therefore first reduced to sums of each group
(`add`, in as many pieces as one likes); a draw is how often each group was drawn, and a product of matrices gives the
sums of all draws at once.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from foldvote.evaluation.calibration import BINS, checked, confidence_bins, squared_distances
from foldvote.evaluation.metrics import SMALLEST, Codes, Floats
from foldvote.io.files import sha256_bytes
from foldvote.runtime.seeding import generator

Array = npt.NDArray[np.float64]
Direction = Literal["higher", "lower"]
METRICS = ("macro_f1", "accuracy", "log_loss", "brier", "ece")
BETTER: dict[str, Direction] = {
    "macro_f1": "higher",
    "accuracy": "higher",
    "log_loss": "lower",
    "brier": "lower",
    "ece": "lower",
}
_IMAGES, _LOG_LOSS, _BRIER, _GAPS = 0, 1, 2, 3
_HITS = _GAPS + BINS
_BAGS = 4_000
_PIECE_IMAGES = 1 << 13
_PIECE_BYTES = 64 << 20  # of one piece of the matrix of draws


@dataclass(frozen=True)
class GroupSums:
    """All that the scores need to know of one row of predictions.

    Attributes:
        values: float64 of shape (groups, 18 + 2 C). Columns: images; sum of log-loss; sum of the Brier score; of each
            of 15 bins the sum of confidence - correctness; hits of each class; true + predicted of each class. Sums of
            the same groups over different images add up: `GroupSums(a.values + b.values, a.classes)`.
        classes: number of classes C.
    """

    values: Array
    classes: int


class Comparison(NamedTuple):
    """`a - b` with its interval, and the share of draws in which a is better, where a tie counts half."""

    difference: float
    low: float
    high: float
    better: float


def empty_sums(groups: int, classes: int) -> GroupSums:
    """Sums of no image, for groups 0..groups-1 and classes 0..classes-1."""
    return GroupSums(np.zeros((groups, _HITS + 2 * classes)), classes)


def add(
    sums: GroupSums, labels: Codes, probabilities: Floats, groups: Codes, predicted: Codes | None = None
) -> GroupSums:
    """Add images to the sums, in place.

    Args:
        sums: as `empty_sums` gives them.
        labels: true codes, shape (images,), each in 0..C-1.
        probabilities: shape (images, C), rows sum to 1, any float type.
        groups: the group of each image (a code of its person), shape (images,), each in 0..G-1.
        predicted: the class chosen for each image by a rule of decision; None: the most probable, of equal ones the
            lowest code. The confidence in ECE is the probability of this class.

    Returns:
        The same sums.

    Raises:
        ValueError: if shapes do not go together, a code is out of range or a value is not a probability.
    """
    labels, probabilities, groups = np.asarray(labels), np.asarray(probabilities), np.asarray(groups)
    number, classes = len(sums.values), sums.classes
    if probabilities.shape != (len(labels), classes):
        raise ValueError(f"probabilities have the shape {probabilities.shape}, expected {(len(labels), classes)}")
    _check_codes("groups", groups, len(labels), number)
    if predicted is not None:
        predicted = np.asarray(predicted)
        _check_codes("predictions", predicted, len(labels), classes)
    for start in range(0, len(labels), _PIECE_IMAGES):
        piece = slice(start, start + _PIECE_IMAGES)
        chosen = probabilities[piece].argmax(axis=1) if predicted is None else predicted[piece].astype(np.int64)
        _add_piece(sums, *checked(labels[piece], probabilities[piece]), groups[piece].astype(np.int64), chosen)
    return sums


def group_sums(
    labels: Codes, probabilities: Floats, groups: Codes, classes: int, predicted: Codes | None = None
) -> GroupSums:
    """Sums of the images of each group, for as many groups as the highest code needs. Arguments as in `add`."""
    number = int(np.max(groups)) + 1 if len(groups) else 0
    return add(empty_sums(number, classes), labels, probabilities, groups, predicted)


def scores(sums: GroupSums) -> dict[str, float]:
    """The scores themselves, by the names in METRICS; each as in `metrics` and `calibration`, 0.0 without images."""
    totals = sums.values.sum(axis=0)[None]
    return {name: float(values[0]) for name, values in _scores(totals, sums.classes).items()}


def bootstrap(rows: Mapping[str, GroupSums], draws: int = 2000, seed: int = 0) -> dict[str, dict[str, Array]]:
    """The scores of every row in each of many draws of its groups.

    A row draws among the groups that have images in it, as many as there are, with replacement. Draw i depends on the
    seed, i and this set of groups alone: rows of the same groups share their draws and compare in pairs, rows of other
    groups are drawn on their own, and rows may be given all at once or in several calls.

    Over 4,000 groups, these are first dealt at random to 4,000 bags, and bags are drawn. Sums of independent groups
    are independent as well, so the spread stays true to within 1/sqrt(2 * 4,000) = 1.1 % of itself, less than 2,000
    draws leave open, and time no longer grows with the groups.

    Args:
        rows: sums by the name of the row.
        draws: number of draws.
        seed: the run's seed.

    Returns:
        For each row and each name in METRICS the scores of the draws, float64 of shape (draws,). Beside the rows it
        takes at most 64 MiB for a piece of the draws (more only if one draw is larger), and a copy of the rows that
        cover a part of their groups.

    Raises:
        ValueError: if a row has no image.
    """
    alike: dict[bytes, list[str]] = {}
    for name, sums in rows.items():
        cover = sums.values[:, _IMAGES] > 0
        if not cover.any():
            raise ValueError(f"row {name} has no image")
        alike.setdefault(np.flatnonzero(cover).tobytes(), []).append(name)
    drawn = {}
    for own, names in alike.items():
        for name, totals in zip(names, _totals(own, [rows[name].values for name in names], draws, seed), strict=True):
            drawn[name] = _scores(totals, rows[name].classes)
    return {name: drawn[name] for name in rows}


def interval(values: Array, level: float = 0.95) -> tuple[float, float]:
    """The percentile interval of drawn scores (Efron 1979): the middle part of them, of size `level`.

    Below some 30 groups it is too narrow. Macro-F1 leans downwards in draws that miss a rare class.

    Args:
        values: scores of draws, shape (draws,).
        level: above 0 and below 1.
    """
    if not 0 < level < 1:
        raise ValueError(f"level {level} must be between 0 and 1")
    low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def compare(
    a: Array, b: Array, better: Direction, level: float = 0.95, points: tuple[float, float] | None = None
) -> Comparison:
    """Compare two rows draw by draw in one score.

    Args:
        a, b: scores of the same draws, shape (draws,), of two rows over the same groups.
        better: which values are better, as in BETTER.
        level: of the interval.
        points: the scores of a and b themselves; then the difference is theirs, else it is the mean over the draws.

    Raises:
        ValueError: if the shapes differ or `better` is neither `higher` nor `lower`.
    """
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    if a.shape != b.shape or a.ndim != 1 or not a.size:
        raise ValueError(f"draws {a.shape} and {b.shape} must be one row of equal length")
    if better not in ("higher", "lower"):
        raise ValueError(f"better is {better!r}, neither higher nor lower")
    apart = a - b
    gain = apart if better == "higher" else -apart
    share = np.mean(gain > 0) + np.mean(gain == 0) / 2
    difference = apart.mean() if points is None else points[0] - points[1]
    return Comparison(float(difference), *interval(apart, level), float(share))


def _check_codes(name: str, codes: Codes, images: int, number: int) -> None:
    if codes.shape != (images,):
        raise ValueError(f"{name} have the shape {codes.shape}, expected {(images,)}")
    if images and (codes.min() < 0 or codes.max() >= number):
        raise ValueError(f"{name} run from {codes.min()} to {codes.max()}, outside 0 to {number - 1}")


def _add_piece(sums: GroupSums, labels: Codes, probabilities: Array, groups: Codes, chosen: Codes) -> None:
    rows = np.arange(len(labels))
    confidence, hit = probabilities[rows, chosen], chosen == labels
    flat, start = sums.values.reshape(-1), groups * sums.values.shape[1]  # a view: `empty_sums` is contiguous
    both = start + _HITS + sums.classes
    np.add.at(flat, start + _IMAGES, 1.0)
    np.add.at(flat, start + _LOG_LOSS, -np.log(np.clip(probabilities[rows, labels], SMALLEST, 1.0)))
    np.add.at(flat, start + _BRIER, squared_distances(labels, probabilities))
    np.add.at(flat, start + _GAPS + confidence_bins(confidence), confidence - hit)
    np.add.at(flat, start + _HITS + labels, hit.astype(np.float64))
    np.add.at(flat, both + labels, 1.0)
    np.add.at(flat, both + chosen, 1.0)


def _totals(own: bytes, rows: Sequence[Array], draws: int, seed: int) -> list[Array]:
    """Sums of each draw, shape (draws, columns), of every row; `own` are the codes of the groups they all cover."""
    codes, key = np.frombuffer(own, dtype=np.intp), sha256_bytes(own)
    covered = _in_bags([row if len(row) == len(codes) else row[codes] for row in rows], key, seed)
    totals = [np.empty((draws, row.shape[1])) for row in rows]
    for start, times in _multiplicities(len(covered[0]), key, draws, seed):
        for values, of_draws in zip(covered, totals, strict=True):
            # A product for each row: its sums do not depend on the rows beside it, and equal rows stay equal.
            np.matmul(times, values, out=of_draws[start : start + len(times)])
    return totals


def _in_bags(rows: list[Array], key: str, seed: int) -> list[Array]:
    """The sums of at most so many bags of groups; bags differ by one group at most."""
    groups = len(rows[0])
    if groups <= _BAGS:
        return rows
    order = generator(seed, "bootstrap", "bags", key).permutation(groups)
    starts = np.arange(_BAGS) * groups // _BAGS
    return [np.add.reduceat(row[order], starts, axis=0) for row in rows]


def _multiplicities(groups: int, key: str, draws: int, seed: int) -> Iterator[tuple[int, Array]]:
    """How often each group is in each draw, float64 (draws of a piece, groups), with the piece's first draw."""
    at_once = max(1, min(draws, _PIECE_BYTES // (8 * groups)))
    for start in range(0, draws, at_once):
        piece = np.empty((min(at_once, draws - start), groups))
        for row, draw in zip(piece, range(start, draws), strict=False):
            chosen = generator(seed, "bootstrap", key, draw).integers(groups, size=groups)
            row[:] = np.bincount(chosen, minlength=groups)
        yield start, piece


def _scores(totals: Array, classes: int) -> dict[str, Array]:
    """Scores of sums over images: float64 (n, columns) to float64 (n,) by name."""
    images = np.maximum(totals[:, _IMAGES], 1)
    hits, both = totals[:, _HITS : _HITS + classes], totals[:, _HITS + classes :]
    return {
        "macro_f1": (2 * hits / np.maximum(both, 1)).mean(axis=1),
        "accuracy": hits.sum(axis=1) / images,
        "log_loss": totals[:, _LOG_LOSS] / images,
        "brier": totals[:, _BRIER] / images,
        "ece": np.abs(totals[:, _GAPS:_HITS]).sum(axis=1) / images,
    }
