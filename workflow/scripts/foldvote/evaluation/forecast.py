"""What a public and a private leaderboard can say about several submissions (rows), from simulated boards.

Knows draws of true, public and private scores (`bootstrap.board_draws`); not where the predictions come from.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
import numpy.typing as npt

from foldvote.evaluation.bootstrap import BETTER, GroupSums, board_draws, scores
from foldvote.evaluation.intervals import interval

Array = npt.NDArray[np.float64]
DRAWS = 4000
LEADS = (0.0, 0.005, 0.01, 0.02, 0.05)  # on the public board, in points of the score
_EQUAL = 1e-12


@dataclass(frozen=True)
class Boards:
    """Simulated boards; of every score the higher one is the better one (losses have a minus sign).

    Attributes:
        names: the rows, the best one on the known groups first.
        known: their scores on the known groups, float64 (rows,).
        truth: their true scores in each draw, float64 (rows, draws).
        public: on the public board of the same draw.
        private: on its private board.
        groups: the number of known groups.
        sizes: numbers of groups on the public and on the private board.
    """

    names: tuple[str, ...]
    known: Array
    truth: Array
    public: Array
    private: Array
    groups: int
    sizes: tuple[int, int]


def simulate_boards(
    rows: Mapping[str, GroupSums], score: str, sizes: tuple[int, int], draws: int = DRAWS, seed: int = 0
) -> Boards:
    """Draw true scores, and a public and a private board of new groups.

    Args:
        rows: sums of each row over images of the same groups.
        score: a name in bootstrap.METRICS.
        sizes: numbers of groups on the public and on the private board.
        draws: number of draws.
        seed: the seed of the draws.
    """
    sign = 1.0 if BETTER[score] == "higher" else -1.0
    drawn = board_draws(rows, sizes, draws, seed)
    known = {name: sign * scores(sums)[score] for name, sums in rows.items()}
    names = tuple(sorted(rows, key=lambda name: -known[name]))
    truth, public, private = (sign * np.stack([board[name][score] for name in names]) for board in drawn)
    groups = int((next(iter(rows.values())).values[:, 0] > 0).sum())
    return Boards(names, np.asarray([known[name] for name in names]), truth, public, private, groups, sizes)


def forecast(boards: Boards, score: str) -> dict[str, Any]:
    """What the boards can say.

    Args:
        boards: from `simulate_boards`.
        score: the name of their score.

    Returns:
        Plain JSON, scores with their own sign: `rows`, the best one first, each with its score on the known groups,
        expected public and private score with 95 % range, and the share of draws in which it is the best on private or
        equal to it; `leads`: for each row and each other row the probability that it is truly better when it leads on
        public by LEADS; `board`: how misleading a public score is; `choices`: what several ways of choosing one or two
        submissions give on private; `pair`: the two rows that are best together, and `likeliest_pair`: those that hold
        the best row most often.
    """
    sign = 1.0 if BETTER[score] == "higher" else -1.0
    best = boards.private.max(axis=0)
    rows = [
        {
            "row": name,
            "known": sign * float(boards.known[place]),
            "public": _summary(sign * boards.public[place]),
            "private": _summary(sign * boards.private[place]),
            "best_on_private": _share(boards.private[place] >= best - _EQUAL),
        }
        for place, name in enumerate(boards.names)
    ]
    leads = {
        name: {
            other: [
                round(lead_probability(boards.truth[a] - boards.truth[b], boards.public[a] - boards.public[b], lead), 4)
                for lead in LEADS
            ]
            for b, other in enumerate(boards.names)
            if a != b
        }
        for a, name in enumerate(boards.names)
    }
    pair, likeliest = best_pairs(boards.private)
    return {
        "score": score,
        "known_groups": boards.groups,
        "public_groups": boards.sizes[0],
        "private_groups": boards.sizes[1],
        "rows": rows,
        "leads_by": list(LEADS),
        "leads": leads,
        "board": _how_misleading(boards),
        "choices": _choices(boards, pair, sign),
        "pair": [boards.names[place] for place in pair],
        "likeliest_pair": [boards.names[place] for place in likeliest],
    }


def lead_probability(truth: Array, public: Array, lead: float) -> float:
    """The probability that one row is truly better than another, when it leads by so much on the public board.

    True and public differences are taken as jointly normal over the draws, so that a lead that hardly ever occurs has a
    probability as well.

    Args:
        truth: true score of the one minus that of the other in each draw, higher is better, shape (draws,).
        public: the same on the public board.
        lead: the difference on the public board.
    """
    variance = float(public.var())
    slope = float(np.mean((truth - truth.mean()) * (public - public.mean()))) / variance if variance > 0 else 0.0
    expected = float(truth.mean()) + slope * (lead - float(public.mean()))
    rest = math.sqrt(max(float(truth.var()) - slope**2 * variance, 0.0))
    if rest < _EQUAL:
        return 0.5 if abs(expected) < _EQUAL else float(expected > 0)
    return 0.5 * (1 + math.erf(expected / rest / math.sqrt(2)))


def best_pairs(private: Array) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The best two rows to hand in, of which the better one counts.

    Args:
        private: scores on the private board, higher is better, shape (rows, draws).

    Returns:
        The positions of the two rows with the highest expected maximum of their scores, and of the two that most often
        hold the best row; of equal pairs the first. A single row where there is no other.
    """
    if len(private) < 2:
        return (0,), (0,)
    pairs = list(combinations(range(len(private)), 2))
    best = private.max(axis=0) - _EQUAL
    together = [np.maximum(private[a], private[b]) for a, b in pairs]
    expected, likely = [float(one.mean()) for one in together], [float((one >= best).mean()) for one in together]
    return pairs[int(np.argmax(expected))], pairs[int(np.argmax(likely))]


def _how_misleading(boards: Boards) -> dict[str, float]:
    """How far public scores are from private and from true ones."""
    leader, draws = boards.public.argmax(axis=0), np.arange(boards.public.shape[1])
    gaps = np.abs(boards.public - boards.private)
    led, private = boards.public[leader, draws], boards.private[leader, draws]
    return {
        "gap_median": round(float(np.median(gaps)), 6),
        "gap_95": round(float(np.quantile(gaps, 0.95)), 6),
        "leader_falls": round(float((led - private).mean()), 6),
        "leader_is_best_on_private": _share(private >= boards.private.max(axis=0) - _EQUAL),
        "leader_is_truly_best": _share(boards.truth[leader, draws] >= boards.truth.max(axis=0) - _EQUAL),
        "pairs_in_true_order": round(_same_order(boards.public, boards.truth), 4),
        "places_moved": round(float(np.abs(_places(boards.public) - _places(boards.private)).mean()), 2),
    }


def _choices(boards: Boards, pair: Sequence[int], sign: float) -> list[dict[str, Any]]:
    """What each way of choosing gives on the private board."""
    draws = np.arange(boards.public.shape[1])
    known, public = boards.groups, boards.sizes[0]
    # The known groups and those of the public board together, each group with the same weight.
    both = (known * boards.known[:, None] + public * boards.public) / (known + public)
    first, leader = boards.private[0], boards.private[boards.public.argmax(axis=0), draws]
    best = boards.private.max(axis=0)
    ways = {
        "known": first,
        "public": leader,
        "both": boards.private[both.argmax(axis=0), draws],
        "pair": boards.private[list(pair)].max(axis=0),
        "known and public": np.maximum(first, leader),
        "hindsight": best,
    }
    return [
        {
            "by": name,
            "private": _summary(sign * values),
            "loss": round(float((best - values).mean()), 6),
            "has_best": _share(values >= best - _EQUAL),
        }
        for name, values in ways.items()
    ]


def _same_order(public: Array, truth: Array) -> float:
    """The share of pairs of rows and draws in which public and true scores say the same; a tie counts half."""
    found = [
        1 - 0.5 * np.abs(np.sign(public[a] - public[b]) - np.sign(truth[a] - truth[b])).mean()
        for a, b in combinations(range(len(public)), 2)
    ]
    return float(np.mean(found)) if found else 1.0


def _places(values: Array) -> Array:
    """The place of each row in each draw, from 1; equal rows share the mean of their places."""
    above = (values[None] > values[:, None]).sum(axis=1)
    equal = (values[None] == values[:, None]).sum(axis=1)
    return above + (equal + 1) / 2


def _summary(values: Array) -> dict[str, float]:
    low, high = interval(values)
    return {"expected": round(float(values.mean()), 6), "low": round(low, 6), "high": round(high, 6)}


def _share(true: npt.NDArray[np.bool_]) -> float:
    return round(float(true.mean()), 4)
