"""The scores that go to metrics.json: of members, models and votes, with intervals over persons."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from foldvote.bootstrap import METRICS, GroupSums, bootstrap, group_sums, interval, scores
from foldvote.calibration import calibrate_nested, fit_temperature, reliability
from foldvote.candidates import subsample
from foldvote.contest import Contest, Images
from foldvote.gather import Gathered
from foldvote.labels import Scheme
from foldvote.metrics import score
from foldvote.nested import nested_parts
from foldvote.voices import own_classes

Codes = npt.NDArray[np.integer]
Floats = npt.NDArray[np.floating]
_MOST_TEMPERED = 20_000  # images: one number needs no more


def scored(
    images: Images, probabilities: Floats, scheme: Scheme, factors: Sequence[str] | None, draws: int, seed: int
) -> dict[str, Any]:
    """All scores of some predictions, with 95 % intervals from a bootstrap over persons.

    Args:
        images: the images' labels (of the whole task's classes) and persons.
        probabilities: of the whole task's classes, shape (images, classes).
        scheme: the task's classes.
        factors: those that the model learns; it is scored on their classes alone. None: on all.
        draws: number of draws.
        seed: the run's seed.

    Returns:
        As `metrics.score` gives it, and `brier`, `ece` and `intervals`; `temperature`, which would calibrate them
        (above 1: surer than right); `factors_learnt` where only some are.
    """
    own, said = own_classes(probabilities, factors, scheme)
    labels = scheme.restricted(factors)[1][images.labels] if factors else images.labels
    sums = group_sums(labels, said, images.groups, len(own.classes))
    found = score(labels, said, own) | with_intervals(sums, draws, seed)
    found["temperature"] = round(fit_temperature(said, labels, _MOST_TEMPERED), 4)
    return found | ({"factors_learnt": list(factors)} if factors else {})


def with_intervals(sums: GroupSums, draws: int, seed: int) -> dict[str, Any]:
    """`brier`, `ece`, and `intervals`: low and high end of each score."""
    drawn, points = bootstrap({"": sums}, draws, seed)[""], scores(sums)
    spans = {metric: [round(end, 6) for end in interval(drawn[metric])] for metric in METRICS}
    return {"brier": points["brier"], "ece": points["ece"], "intervals": spans}


def contest_scores(contest: Contest) -> dict[str, dict[str, Any]]:
    """Each kind of vote: its nested scores with intervals, the optimistic ones, and the comparison with the chosen."""
    return {
        kind: {
            "images": contest.images,
            **entry.nested,
            "intervals": {metric: [round(end, 6) for end in interval(entry.draws[metric])] for metric in METRICS},
            "optimistic": entry.optimistic,
            "against_chosen": contest.against[kind]._asdict(),
        }
        for kind, entry in contest.entries.items()
    }


def model_scores(gathered: Gathered, images: Images, scheme: Scheme, draws: int, seed: int) -> dict[str, Any]:
    """Each model's scores over all its folds, as `scored` gives them, and once more after a temperature of its own."""
    found = {}
    for model in gathered.models:
        said, factors = gathered.mean_of(model), gathered.learnt[model]
        found[model] = scored(images, said, scheme, factors, draws, seed)
        found[model]["calibrated"] = _calibrated(images, said, scheme, factors, seed)
    return found


def _calibrated(
    images: Images, said: Floats, scheme: Scheme, factors: Sequence[str] | None, seed: int
) -> dict[str, float]:
    """Log-loss, Brier score and calibration error after a temperature that is fitted on other persons."""
    drawn = subsample(len(said), images.groups, seed)
    own, before = own_classes(said[drawn], factors, scheme)
    some = images.rows(drawn)
    labels = scheme.restricted(factors)[1][some.labels] if factors else some.labels
    after = calibrate_nested(before, labels, nested_parts(some.folds, some.groups, seed))
    points = scores(group_sums(labels, after, np.zeros(len(labels), np.int64), len(own.classes)))
    return {metric: points[metric] for metric in ("log_loss", "brier", "ece")}


def calibration_scores(
    labels: Codes, before: Floats, after: Floats, method: str
) -> tuple[dict[str, Any], pd.DataFrame]:
    """Log-loss, Brier score and expected calibration error before and after calibration, and reliability tables.

    Args:
        labels: true codes, shape (images,).
        before: the vote's probabilities, shape (images, classes).
        after: the same after calibration on other persons.
        method: how they were calibrated.

    Returns:
        A JSON-able dict, and the rows of ensemble/reliability.csv.
    """
    everyone = np.zeros(len(labels), np.int64)
    summary: dict[str, Any] = {"method": method}
    tables = []
    for name, probabilities in (("before", before), ("after", after)):
        points = scores(group_sums(labels, probabilities, everyone, probabilities.shape[1]))
        summary[name] = {metric: points[metric] for metric in ("log_loss", "brier", "ece")}
        tables.append(reliability(labels, probabilities).assign(calibration=name))
    return summary, pd.concat(tables, ignore_index=True)
