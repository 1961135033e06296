"""Greedy forward selection with replacement, and bags of candidates.

Caruana, Niculescu-Mizil, Crew and Ksikes, "Ensemble selection from libraries of models" (ICML 2004): sorted
initialisation (section 2.2), selection with replacement (2.1), bags of candidates against overfitting (2.3).
"""

from collections.abc import Callable
from typing import Literal

import numpy as np
import numpy.typing as npt

from foldvote.ensemble.candidates import Candidates
from foldvote.evaluation.metrics import SMALLEST, macro_f1
from foldvote.runtime.seeding import generator

Metric = Literal["log_loss", "macro_f1"]
Floats = npt.NDArray[np.float64]
Losses = Callable[[Floats, int], Floats]
BAGS = 20
SMALLEST_BAG = 5  # half of a few candidates may hold none that is any good, and the bag's vote would count all the same
MOST_PICKS = 50
MOST_FIRST = 5
SAME = 1e-12  # losses that differ by rounding alone


def ensemble_selection(
    candidates: Candidates, labels: npt.NDArray[np.integer], seed: int, metric: Metric = "log_loss", bags: int = BAGS
) -> dict[str, float]:
    """The share of each candidate in greedily grown ensembles, averaged over bags of candidates.

    A bag holds half of the candidates, but five at least, or all where there are fewer. It begins with the best few by
    their own loss, as many as are best together, and picks until nothing improves or 50 are picked.

    Args:
        candidates: out-of-fold probabilities.
        labels: true codes, shape (images,).
        seed: of the draws of bags, which follow the sorted names.
        metric: what is improved.
        bags: number of bags.

    Returns:
        A weight a candidate by name, from 0 up; the sum is 1.
    """
    candidates = candidates.ordered()
    count, losses = len(candidates.names), _losses(candidates, labels, metric)
    size = min(count, max((count + 1) // 2, SMALLEST_BAG))
    drawn = [np.arange(count)] if size == count else _bags(count, size, bags, seed)
    known: dict[bytes, Floats] = {}
    for bag in drawn:
        if bag.tobytes() not in known:
            known[bag.tobytes()] = _grown(losses, bag, count)
    weights = np.mean([known[bag.tobytes()] for bag in drawn], axis=0)
    return dict(zip(candidates.names, (weights / weights.sum()).tolist(), strict=True))


def _bags(count: int, size: int, bags: int, seed: int) -> list[npt.NDArray[np.int64]]:
    return [
        np.sort(generator(seed, "vote", "greedy", bag).choice(count, size, replace=False)).astype(np.int64)
        for bag in range(bags)
    ]


def _grown(losses: Losses, bag: npt.NDArray[np.int64], count: int) -> Floats:
    """Shares of the picks of one bag: float64 (count,)."""
    outside = np.full(count, np.inf)
    outside[bag] = 0
    alone = losses(np.zeros(count), 0) + outside
    ranking = np.lexsort((np.arange(count), np.round(alone, 12)))[: min(len(bag), MOST_FIRST)]
    picks = np.zeros(count)
    best = (np.inf, 0)
    for number, candidate in enumerate(ranking):
        loss = losses(picks, number)[candidate]
        picks[candidate] += 1
        if loss < best[0] - SAME:
            best = (loss, number + 1)
    loss, first = best
    picks = np.bincount(ranking[:first], minlength=count).astype(np.float64)
    for number in range(first, MOST_PICKS):
        trials = losses(picks, number) + outside
        pick = int(np.flatnonzero(trials <= trials.min() + SAME)[0])
        if not trials[pick] < loss - SAME:
            break
        picks[pick] += 1
        loss = trials[pick]
    return picks / picks.sum()


def _losses(candidates: Candidates, labels: npt.NDArray[np.integer], metric: Metric) -> Losses:
    """A function of the picks so far and their number: the loss after one more pick of each candidate."""
    labels = np.asarray(labels, np.int64)
    if metric == "log_loss":
        own = candidates.probabilities[:, np.arange(len(labels)), labels].astype(np.float64)
        return lambda picks, number: -np.log(np.maximum((picks @ own + own) / (number + 1), SMALLEST)).mean(axis=1)

    def errors(picks: Floats, _: int) -> Floats:
        so_far = np.tensordot(picks, candidates.probabilities, 1)
        return np.array([1 - macro_f1(labels, (so_far + one).argmax(axis=1), candidates.classes)
                         for one in candidates.probabilities])  # fmt: skip

    return errors
