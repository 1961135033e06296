"""Intervals of scores: a bootstrap over groups (persons) and not over images.

Images of one group are not independent, so an interval from drawing images is too narrow. Here whole groups are drawn
with replacement (Efron, "Bootstrap Methods: Another Look at the Jackknife", 1979; for groups Field and Welsh,
"Bootstrapping clustered data", JRSS B 2007, the randomised cluster bootstrap).

Every score here is a function of sums over images. The predictions are therefore first reduced to sums for each group
(`add`, in as many pieces as one likes). A draw is then a vector of how often each group was drawn, and the product of
the matrix of draws and the matrix of group sums gives the sums of all draws at once. No image is looked at again.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from foldvote.evaluation.calibration import BINS, checked, confidence_bins, squared_distances
from foldvote.evaluation.intervals import Direction
from foldvote.evaluation.metrics import SMALLEST, Codes, Floats
from foldvote.io.files import sha256_bytes
from foldvote.runtime.seeding import generator

Array = npt.NDArray[np.float64]
METRICS = ("macro_f1", "accuracy", "log_loss", "brier", "ece")
BETTER: dict[str, Direction] = {
    "macro_f1": "higher",
    "accuracy": "higher",
    "log_loss": "lower",
    "brier": "lower",
    "ece": "lower",
}
# Columns of GroupSums.values; the last two blocks have one column per class.
_IMAGES, _LOG_LOSS, _BRIER, _GAPS = 0, 1, 2, 3
_HITS = _GAPS + BINS
_BAGS = 4_000  # more groups are drawn in so many bags
_PIECE_IMAGES = 1 << 13  # images added at once
_PIECE_BYTES = 64 << 20  # of one piece of the matrix of draws
_PIECES_KEPT = 2
_POPULATION = 1e6  # groups of a population that a board is drawn from: so many that no class has less than one image


@dataclass(frozen=True)
class GroupSums:
    """The sums that scores of some predictions are computed from, for each group of images.

    Attributes:
        values: float64 of shape (groups, 18 + 2 C). Columns: number of images; sum of the log-loss; sum of the Brier
            score; for each of 15 bins of confidence, the sum of confidence - correctness; for each class the hits; for
            each class the number of images that have it as label plus those that have it as prediction. Sums of the
            same groups over different images can be added: `GroupSums(a.values + b.values, a.classes)`.
        classes: number of classes C.
    """

    values: Array
    classes: int


def empty_sums(groups: int, classes: int) -> GroupSums:
    """The sums before any image is added: zeros, for groups 0..groups-1 and classes 0..classes-1."""
    return GroupSums(np.zeros((groups, _HITS + 2 * classes)), classes)


def add(
    sums: GroupSums, labels: Codes, probabilities: Floats, groups: Codes, predicted: Codes | None = None
) -> GroupSums:
    """Add images to the sums, in place.

    Args:
        sums: from `empty_sums`, or with images added already.
        labels: true codes, shape (images,), each in 0..C-1.
        probabilities: shape (images, C), rows sum to 1, any float type.
        groups: the code of each image's group, shape (images,), each in 0..G-1.
        predicted: predicted codes, shape (images,); None: those of the largest probability, of equal ones the lowest
            code. The confidence in ECE is the probability of the predicted class.

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
        codes = probabilities[piece].argmax(axis=1) if predicted is None else predicted[piece].astype(np.int64)
        _add_piece(sums, *checked(labels[piece], probabilities[piece]), groups[piece].astype(np.int64), codes)
    return sums


def group_sums(
    labels: Codes, probabilities: Floats, groups: Codes, classes: int, predicted: Codes | None = None
) -> GroupSums:
    """The sums of some predictions.

    Args:
        labels: true codes, shape (images,), each in 0..classes-1.
        probabilities: shape (images, classes), rows sum to 1, any float type.
        groups: the code of each image's group, shape (images,), from 0 up; the highest gives the number of groups.
        classes: number of classes.
        predicted: predicted codes, shape (images,); None: those of the largest probability.

    Raises:
        ValueError: if shapes do not go together, a code is out of range or a value is not a probability.
    """
    number = int(np.max(groups)) + 1 if len(groups) else 0
    return add(empty_sums(number, classes), labels, probabilities, groups, predicted)


def scores(sums: GroupSums) -> dict[str, float]:
    """The scores of all images together, by the names in METRICS; 0.0 without images.

    They equal those of the modules metrics and calibration, but for rounding.
    """
    totals = sums.values.sum(axis=0)[None]
    return {name: float(values[0]) for name, values in _scores(totals, sums.classes).items()}


def bootstrap(rows: Mapping[str, GroupSums], draws: int = 2000, seed: int = 0) -> dict[str, dict[str, Array]]:
    """The scores of several sets of predictions (rows, as of a leaderboard) in each of many draws of their groups.

    A draw takes as many groups as have images in the row, among these, with replacement. Draw i depends on the seed, i
    and this set of groups alone. So rows with the same groups share their draws and can be compared in pairs; rows with
    other groups are drawn on their own; and rows may be given all at once or in several calls.

    More than 4,000 groups are first dealt at random to 4,000 bags, and bags are drawn. Sums of independent groups are
    independent as well, so the spread stays true to within 1/sqrt(2 * 4,000) = 1.1 % of itself. That is less than the
    error of 2,000 draws, and the time no longer grows with the number of groups.

    Args:
        rows: sums by the name of the row.
        draws: number of draws.
        seed: the run's seed.

    Returns:
        For each row and each name in METRICS the scores in the draws, float64 of shape (draws,).

    Raises:
        ValueError: if a row has no image.
    """
    totals = draw_totals_of_rows({name: sums.values for name, sums in rows.items()}, draws, seed)
    return {name: _scores(of_draws, rows[name].classes) for name, of_draws in totals.items()}


def draw_totals_of_rows(rows: Mapping[str, Array], draws: int, seed: int) -> dict[str, Array]:
    """The sums over all images in each draw of groups, as in `bootstrap`.

    Args:
        rows: by the name of the row the sums of each group, float64 (groups, columns); the first column counts images.
        draws: number of draws.
        seed: the run's seed.

    Returns:
        float64 (draws, columns) by row.

    Raises:
        ValueError: if a row has no image.
    """
    by_groups: dict[bytes, list[str]] = {}  # names of the rows by the codes of the groups that have images in them
    for name, values in rows.items():
        has_images = values[:, _IMAGES] > 0
        if not has_images.any():
            raise ValueError(f"row {name} has no image")
        by_groups.setdefault(np.flatnonzero(has_images).tobytes(), []).append(name)
    drawn: dict[str, Array] = {}
    for codes, names in by_groups.items():
        drawn |= dict(zip(names, _draw_totals(codes, [rows[name] for name in names], draws, seed), strict=True))
    return {name: drawn[name] for name in rows}


def board_draws(
    rows: Mapping[str, GroupSums], sizes: Sequence[int], draws: int = 4000, seed: int = 0
) -> list[dict[str, dict[str, Array]]]:
    """The true scores of several rows and their scores on boards of new groups, in each of many draws.

    Each draw takes one population that the groups may come from: the groups with weights from Dirichlet(1, ..., 1)
    (Rubin, "The Bayesian bootstrap", 1981). The rows' scores in it are the true ones. Then it draws the groups of every
    board from this population. So a board's spread holds both what is not known of the population and what the board's
    own groups add. More than 4,000 groups are dealt to bags first, as in `bootstrap`.

    Args:
        rows: sums by the name of the row; images of the same groups in all of them.
        sizes: the number of groups on each board, each 1 or more.
        draws: number of draws.
        seed: the run's seed.

    Returns:
        First the true scores, then those on each board: by row and by the names in METRICS, float64 (draws,).

    Raises:
        ValueError: if a row has no image or images of other groups than the first one, or a size is below 1.
    """
    have = {np.flatnonzero(sums.values[:, _IMAGES] > 0).tobytes() for sums in rows.values()}
    if len(have) != 1 or have == {b""} or min(sizes) < 1:
        raise ValueError("rows need images, of the same groups, and boards one group or more")
    codes = have.pop()
    groups, key = np.frombuffer(codes, dtype=np.intp), sha256_bytes(codes)
    units = _deal_to_bags([sums.values[groups] for sums in rows.values()], key, seed)
    number = len(units[0])
    of_boards = [max(1, round(size * number / len(groups))) for size in sizes]
    totals = [[np.empty((draws, row.shape[1])) for row in units] for _ in (0, *sizes)]
    at_once = max(1, min(draws, _PIECE_BYTES // (8 * number * len(totals))))
    for start in range(0, draws, at_once):
        times = np.empty((len(totals), min(at_once, draws - start), number))
        for place in range(times.shape[1]):
            drawn = generator(seed, "boards", key, start + place)
            weights = drawn.dirichlet(np.ones(number))
            times[0, place] = weights * _POPULATION
            for board, size in enumerate(of_boards, start=1):
                times[board, place] = drawn.multinomial(size, weights)
        for of_place, into in zip(times, totals, strict=True):
            for values, of_draws in zip(units, into, strict=True):
                np.matmul(of_place, values, out=of_draws[start : start + len(of_place)])
    return [
        {name: _scores(own, rows[name].classes) for name, own in zip(rows, of_place, strict=True)}
        for of_place in totals
    ]


def draw_totals(values: Array, draws: int, seed: int) -> Array:
    """Sums of any columns over the groups of each draw, float64 (draws, columns); the draws are those of `bootstrap`.

    Args:
        values: sums over the images of each group, shape (groups, columns); every group has images.
        draws: number of draws.
        seed: the run's seed.
    """
    return _draw_totals(np.arange(len(values), dtype=np.intp).tobytes(), [values], draws, seed)[0]


def drawn_units(groups: Codes, draws: int, seed: int) -> tuple[npt.NDArray[np.intp], Array]:
    """How often each image is drawn in each draw of groups, the same draws as in `bootstrap`.

    Args:
        groups: the code of each image's group, shape (images,), from 0 up.
        draws: number of bootstrap draws, a few hundred at most.
        seed: the run's seed.

    Returns:
        The unit of each image, its group or bag, int (images,); and how often each unit is drawn, float64 (draws,
        units).
    """
    present, place = np.unique(np.asarray(groups, dtype=np.intp), return_inverse=True)
    key, units = sha256_bytes(present.tobytes()), len(present)
    if units > _BAGS:
        order, starts = _bags(units, key, seed)
        bag = np.empty(units, np.intp)
        bag[order] = np.searchsorted(starts, np.arange(units), side="right") - 1
        place, units = bag[place], _BAGS
    return place, np.concatenate([times for _, times in _draw_counts(units, key, draws, seed)])


def _check_codes(name: str, codes: Codes, images: int, number: int) -> None:
    if codes.shape != (images,):
        raise ValueError(f"{name} have the shape {codes.shape}, expected {(images,)}")
    if images and (codes.min() < 0 or codes.max() >= number):
        raise ValueError(f"{name} run from {codes.min()} to {codes.max()}, outside 0 to {number - 1}")


def _add_piece(sums: GroupSums, labels: Codes, probabilities: Array, groups: Codes, predicted: Codes) -> None:
    rows = np.arange(len(labels))
    confidence, hit = probabilities[rows, predicted], predicted == labels
    # One flat view of the table: the cell of a group and a column is at group * columns + column. (`empty_sums` is
    # contiguous, so reshape makes no copy.) `add.at` adds once for each image, also where a cell comes up repeatedly.
    flat, start = sums.values.reshape(-1), groups * sums.values.shape[1]
    labels_and_predictions = start + _HITS + sums.classes
    np.add.at(flat, start + _IMAGES, 1.0)
    np.add.at(flat, start + _LOG_LOSS, -np.log(np.clip(probabilities[rows, labels], SMALLEST, 1.0)))
    np.add.at(flat, start + _BRIER, squared_distances(labels, probabilities))
    np.add.at(flat, start + _GAPS + confidence_bins(confidence), confidence - hit)
    np.add.at(flat, start + _HITS + labels, hit.astype(np.float64))
    np.add.at(flat, labels_and_predictions + labels, 1.0)
    np.add.at(flat, labels_and_predictions + predicted, 1.0)


def _draw_totals(codes: bytes, rows: Sequence[Array], draws: int, seed: int) -> list[Array]:
    """The sums over images in each draw, of every row.

    Args:
        codes: bytes of the codes of the groups that have images in these rows.
        rows: sums by group, shape (groups, columns).
        draws: number of draws.
        seed: the run's seed.

    Returns:
        float64 (draws, columns) for each row.
    """
    groups, key = np.frombuffer(codes, dtype=np.intp), sha256_bytes(codes)
    units = _deal_to_bags([row if len(row) == len(groups) else row[groups] for row in rows], key, seed)
    totals = [np.empty((draws, row.shape[1])) for row in rows]
    # Draws come in pieces, so that the matrix of draws takes little memory whatever the number of groups.
    for start, times in _draw_counts(len(units[0]), key, draws, seed):
        for values, of_draws in zip(units, totals, strict=True):
            # A product for each row: its sums do not depend on the rows beside it, and equal rows stay equal.
            np.matmul(times, values, out=of_draws[start : start + len(times)])
    return totals


def _deal_to_bags(rows: list[Array], key: str, seed: int) -> list[Array]:
    """The sums of 4,000 bags of groups, whose sizes differ by one at most; where there are fewer groups, the rows."""
    groups = len(rows[0])
    if groups <= _BAGS:
        return rows
    order, starts = _bags(groups, key, seed)
    return [np.add.reduceat(row[order], starts, axis=0) for row in rows]


def _bags(groups: int, key: str, seed: int) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]:
    """The groups in the order in which they are dealt, and where each bag begins in it."""
    return generator(seed, "bootstrap", "bags", key).permutation(groups), np.arange(_BAGS) * groups // _BAGS


def _draw_counts(units: int, key: str, draws: int, seed: int) -> Iterator[tuple[int, Array]]:
    """The matrix of draws in pieces: the number of a piece's first draw, and how often each group or bag is drawn.

    A piece is float64 (its draws, units) of 64 MiB at most, or one draw if that is larger. Each draw has a generator of
    its own, so that the pieces do not change it.
    """
    at_once = max(1, min(draws, _PIECE_BYTES // (8 * units)))
    for start in range(0, draws, at_once):
        yield start, _piece_counts(units, key, start, min(at_once, draws - start), seed).astype(np.float64)


@lru_cache(maxsize=_PIECES_KEPT)
def _piece_counts(units: int, key: str, start: int, draws: int, seed: int) -> npt.NDArray[np.uint16]:
    """Some of the draws: shape (draws, units). The last are kept, for the next predictions of the same groups."""
    piece = np.empty((draws, units), np.uint16)
    for row, draw in zip(piece, range(start, start + draws), strict=True):
        chosen = generator(seed, "bootstrap", key, draw).integers(units, size=units)
        row[:] = np.bincount(chosen, minlength=units)
    return piece


def _scores(totals: Array, classes: int) -> dict[str, Array]:
    """Scores from sums over images: float64 (n, columns) to float64 (n,) by name."""
    images = np.maximum(totals[:, _IMAGES], 1)
    hits, labels_and_predictions = totals[:, _HITS : _HITS + classes], totals[:, _HITS + classes :]
    return {
        "macro_f1": (2 * hits / np.maximum(labels_and_predictions, 1)).mean(axis=1),
        "accuracy": hits.sum(axis=1) / images,
        "log_loss": totals[:, _LOG_LOSS] / images,
        "brier": totals[:, _BRIER] / images,
        "ece": np.abs(totals[:, _GAPS:_HITS]).sum(axis=1) / images,
    }
