"""Every kind of vote against every other: fitted on all, scored nested, with intervals over persons, and the choice."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from foldvote.bootstrap import BETTER, Comparison, bootstrap, compare, group_sums, scores
from foldvote.candidates import MOST_FITTED, Candidates, subsample
from foldvote.labels import Scheme
from foldvote.nested import Nested, choose, nested, nested_parts
from foldvote.sections import Vote
from foldvote.votes import apply_vote, decide_vote, fit_vote, simplest_first, split_kind

Codes = npt.NDArray[np.integer]
Draws = Mapping[str, npt.NDArray[np.float64]]
_OF_SEVERAL_VOICES = ("best_model", "majority", "factor_weights", "class_weights")
_OF_SEVERAL_CANDIDATES = (*_OF_SEVERAL_VOICES, "geometric", "rank", "tempered", "greedy", "weights")


@dataclass(frozen=True)
class Images:
    """The images that votes are compared on.

    Attributes:
        labels: true codes, int (images,).
        folds: the fold of each.
        groups: a code of the person of each, 0 to persons - 1.
    """

    labels: Codes
    folds: Codes
    groups: Codes

    def rows(self, chosen: Codes) -> "Images":
        """Some of the images; their persons are numbered anew, so that sums by person hold these alone."""
        _, persons = np.unique(self.groups[chosen], return_inverse=True)
        return Images(self.labels[chosen], self.folds[chosen], persons)


@dataclass(frozen=True)
class Entry:
    """One kind of vote in the contest.

    Attributes:
        kind: its name.
        params: what it fitted on all images, as plain JSON.
        nested: its scores, each image voted on by a fit on other persons.
        optimistic: its scores on the images that it was fitted on.
        draws: the nested scores in each draw of persons.
    """

    kind: str
    params: dict[str, Any]
    nested: dict[str, float]
    optimistic: dict[str, float]
    draws: Draws


@dataclass(frozen=True)
class Contest:
    """How the kinds compare.

    Attributes:
        entries: the kinds in order of simplicity.
        chosen: the one that is used.
        images: on how many they were compared.
        against: how each compares with the one that is used.
        honest: the one that is used, on images that it was not fitted on: all of them.
    """

    entries: dict[str, Entry]
    chosen: str
    images: int
    against: dict[str, Comparison]
    honest: Nested


def worth_trying(settings: Vote, candidates: Candidates, scheme: Scheme) -> list[str]:
    """The kinds that can differ from the mean for these candidates, the simplest first, and always the mean."""
    voices, out = len(set(candidates.models)), set()
    if voices < 2:
        out |= set(_OF_SEVERAL_VOICES)
    if len(candidates.names) < 2:
        out |= set(_OF_SEVERAL_CANDIDATES)
    if not scheme.factors:
        out.add("factor_weights")
    asked = {"mean", *settings.kinds, *([] if settings.use == "auto" else [settings.use])}
    return simplest_first(kind for kind in asked if split_kind(kind)[0] not in out or kind == settings.use)


def hold_contest(candidates: Candidates, images: Images, scheme: Scheme, settings: Vote, seed: int) -> Contest:
    """Fit and score every kind of vote, and choose one.

    The choice: the simplest kind whose nested score is within one standard error of the paired difference of the
    best one's; or the kind that the settings name. Over 50,000 images it is held among a draw of whole persons
    (candidates.subsample): there a standard error is about a thousandth, and time no longer grows with the images.

    Args:
        candidates: out-of-fold probabilities.
        images: their labels, folds and persons.
        scheme: the classes.
        settings: kinds, score and number of draws.
        seed: the run's seed.

    Raises:
        Refusal: if a kind cannot be fitted.
    """
    drawn = subsample(candidates.images, images.groups, seed, MOST_FITTED)
    whole = len(drawn) == candidates.images
    compared, judged = (candidates, images) if whole else (candidates.rows(drawn), images.rows(drawn))
    parts = nested_parts(judged.folds, judged.groups, seed)
    count, params, optimistic, sums, honest = candidates.classes, {}, {}, {}, {}
    for kind in worth_trying(settings, candidates, scheme):
        honest[kind] = _run_nested(kind, compared, judged, parts, scheme, settings, seed)
        sums[kind] = group_sums(judged.labels, honest[kind].probabilities, judged.groups, count, honest[kind].codes)
        params[kind] = fit_vote(
            kind, compared, judged.labels, scheme, seed, folds=parts, groups=judged.groups, metric=settings.fit_by
        )
        fitted = apply_vote(compared, params[kind], scheme)
        codes = decide_vote(fitted, params[kind])
        optimistic[kind] = scores(group_sums(judged.labels, fitted, judged.groups, count, codes))
    draws = bootstrap(sums, settings.draws, seed)
    entries = {
        kind: Entry(kind, params[kind], scores(own), optimistic[kind], draws[kind]) for kind, own in sums.items()
    }
    chosen = settings.use if settings.use != "auto" else _choice(entries, settings.score)
    against = {kind: versus(entry, entries[chosen], settings.score) for kind, entry in entries.items()}
    of_all = honest[chosen]
    if not whole:
        parts = nested_parts(images.folds, images.groups, seed)
        of_all = _run_nested(chosen, candidates, images, parts, scheme, settings, seed)
    return Contest(entries, chosen, compared.images, against, of_all)


def _run_nested(
    kind: str, candidates: Candidates, images: Images, parts: Codes, scheme: Scheme, settings: Vote, seed: int
) -> Nested:
    """A kind on images that it was not fitted on; arguments as in `hold_contest`, parts from `nested_parts`."""
    return nested(kind, candidates, images.labels, parts, scheme, seed, groups=images.groups, metric=settings.fit_by)


def versus(one: Entry, other: Entry, score: str) -> Comparison:
    """The difference of two kinds' nested scores, over the same draws of persons."""
    points = (one.nested[score], other.nested[score])
    return compare(one.draws[score], other.draws[score], BETTER[score], points=points)


def _choice(entries: Mapping[str, Entry], score: str) -> str:
    higher = BETTER[score] == "higher"
    values = {kind: entry.nested[score] for kind, entry in entries.items()}
    best = (max if higher else min)(values, key=lambda kind: values[kind])
    errors = {
        kind: float(np.std(entry.draws[score] - entries[best].draws[score], ddof=1)) for kind, entry in entries.items()
    }
    return choose(list(entries), values, errors, higher_is_better=higher)
