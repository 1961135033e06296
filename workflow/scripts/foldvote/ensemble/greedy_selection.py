"""Greedy forward selection with replacement, averaged over bags of candidates.

Caruana, Niculescu-Mizil, Crew and Ksikes, "Ensemble selection from libraries of models" (ICML 2004): sorted
initialisation (section 2.2), selection with replacement (2.1), bags of candidates against overfitting (2.3).
"""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from foldvote.ensemble.averaging import apply_weights
from foldvote.ensemble.candidates import Candidates
from foldvote.ensemble.ensemble_method import EnsembleMethod, FitContext, Floats, Labels, Metric, Need, Params
from foldvote.evaluation.metrics import SMALLEST, macro_f1
from foldvote.runtime.seeding import generator

NextLosses = Callable[[Floats, int], Floats]
BAGS = 20
SMALLEST_BAG = 5  # half of a few candidates may hold no good one, and the bag's ensemble would count all the same
MOST_PICKS = 50
MOST_FIRST = 5
SAME = 1e-12  # losses that differ by rounding alone


def fit_greedy(candidates: Candidates, labels: Labels, context: FitContext) -> Params:
    """`weights` by candidate, from `ensemble_selection`."""
    return {"weights": ensemble_selection(candidates, labels, context.seed, context.metric)}


def ensemble_selection(
    candidates: Candidates, labels: Labels, seed: int, metric: Metric = "log_loss", bags: int = BAGS
) -> dict[str, float]:
    """The share of each candidate in greedily grown ensembles, averaged over bags of candidates.

    A bag holds half of the candidates, but at least five, or all where there are fewer. Its ensemble begins with the
    best candidates by their own loss, as many of the first five as are best together. Then it picks the candidate that
    lowers the loss most, any candidate any number of times, until none lowers it or 50 are picked.

    Args:
        candidates: out-of-fold probabilities.
        labels: true codes, shape (images,).
        seed: of the draws of bags, which are made from the sorted names.
        metric: the score that is improved.
        bags: number of bags.

    Returns:
        One weight per candidate by name, none negative; the sum is 1.
    """
    candidates = candidates.ordered()
    count, losses = len(candidates.names), _next_losses(candidates, labels, metric)
    size = min(count, max((count + 1) // 2, SMALLEST_BAG))
    drawn = [np.arange(count)] if size == count else _draw_bags(count, size, bags, seed)
    # Few candidates have few different bags, so a bag may be drawn twice; its ensemble is grown once.
    shares: dict[bytes, Floats] = {}
    for bag in drawn:
        if bag.tobytes() not in shares:
            shares[bag.tobytes()] = _grow_ensemble(losses, bag, count)
    weights = np.mean([shares[bag.tobytes()] for bag in drawn], axis=0)
    return dict(zip(candidates.names, (weights / weights.sum()).tolist(), strict=True))


def _draw_bags(count: int, size: int, bags: int, seed: int) -> list[npt.NDArray[np.int64]]:
    """Positions of the candidates of each bag, in rising order."""
    return [
        np.sort(generator(seed, "vote", "greedy", bag).choice(count, size, replace=False)).astype(np.int64)
        for bag in range(bags)
    ]


def _grow_ensemble(losses: NextLosses, bag: npt.NDArray[np.int64], count: int) -> Floats:
    """The share of each candidate in the ensemble of one bag: float64 (count,)."""
    outside = np.full(count, np.inf)  # added to losses, it rules out the candidates that are not in the bag
    outside[bag] = 0
    # Sorted initialisation: add the candidates in order of their own loss, and keep the best prefix. Losses are rounded
    # so that equal candidates come in order of their names.
    alone = losses(np.zeros(count), 0) + outside
    ranking = np.lexsort((np.arange(count), np.round(alone, 12)))[: min(len(bag), MOST_FIRST)]
    picks = np.zeros(count)
    loss, first = np.inf, 0
    for number, candidate in enumerate(ranking):
        next_loss = losses(picks, number)[candidate]
        picks[candidate] += 1
        if next_loss < loss - SAME:
            loss, first = next_loss, number + 1
    picks = np.bincount(ranking[:first], minlength=count).astype(np.float64)
    # Forward selection with replacement: the best next pick, the first by name among equal ones, while it improves.
    for number in range(first, MOST_PICKS):
        next_losses = losses(picks, number) + outside
        pick = int(np.flatnonzero(next_losses <= next_losses.min() + SAME)[0])
        if not next_losses[pick] < loss - SAME:
            break
        picks[pick] += 1
        loss = next_losses[pick]
    return picks / picks.sum()


def _next_losses(candidates: Candidates, labels: Labels, metric: Metric) -> NextLosses:
    """A function of how often each candidate is picked so far, float64 (candidates,), and the number of these picks.

    It returns the loss of the ensemble after one more pick, of each candidate in turn: float64 (candidates,).
    """
    labels = np.asarray(labels, np.int64)
    if metric == "log_loss":
        # Only the true class's probability counts, (candidates, images): one product of matrices tries all candidates.
        true_class = candidates.probabilities[:, np.arange(len(labels)), labels].astype(np.float64)
        return lambda picks, number: (
            -np.log(np.maximum((picks @ true_class + true_class) / (number + 1), SMALLEST)).mean(axis=1)
        )

    def errors(picks: Floats, _number: int) -> Floats:
        total = np.tensordot(picks, candidates.probabilities, 1)
        return np.array(
            [
                1 - macro_f1(labels, (total + probabilities).argmax(axis=1), candidates.classes)
                for probabilities in candidates.probabilities
            ]
        )

    return errors


GREEDY = EnsembleMethod("greedy", fit_greedy, apply_weights, frozenset({Need.SEVERAL_CANDIDATES}))
