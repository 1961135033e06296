"""Coverage of the interval that a run with a reserve reports for its submitted vote, and its calibration.

    .venv/bin/python benchmarks/reserve_coverage.py [--times 100]

Simulated persons with five photographs each, ten settings of members, classes, noise and certainty. Each time, a method
is chosen, calibrated and scored on a reserve of so many persons, as a run does it; the truth is its score on 3,000
others, with the method and the calibration that are fitted on the whole reserve.
"""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "workflow" / "scripts"))

import numpy as np
import pandas as pd

from foldvote.config.ensemble import Vote
from foldvote.data.label_space import named_label_space
from foldvote.ensemble.candidates import Candidates
from foldvote.ensemble.methods import apply_method, choose_classes
from foldvote.ensemble.reserve import score_on_reserve
from foldvote.ensemble.scaling import apply_scaling
from foldvote.ensemble.selection import EvaluationRows, compare_methods
from foldvote.evaluation.bootstrap import bootstrap, group_sums, scores
from foldvote.evaluation.calibration import apply_temperature, ece, fit_temperature
from foldvote.evaluation.intervals import reflected_interval
from foldvote.evaluation.metrics import log_loss
from foldvote.evaluation.probabilities import softmax
from foldvote.runtime.seeding import generator

# members, classes, persons in the reserve, noise of a member, factor of its certainty
SETTINGS = [
    *((5, 6, 60, 1.0, 1.0), (5, 6, 60, 1.0, 2.0), (5, 18, 60, 1.0, 1.0), (3, 6, 60, 0.5, 2.0), (10, 6, 60, 1.5, 1.0)),
    *((5, 2, 60, 1.0, 1.0), (5, 6, 150, 1.0, 1.0), (5, 18, 150, 0.5, 0.5), (3, 2, 150, 1.5, 2.0)),
    (10, 18, 150, 1.0, 2.0),
]
METRICS = ("macro_f1", "accuracy", "log_loss")
VOTE = Vote(kinds=["mean", "geometric", "greedy"], draws=400)


def main() -> None:
    """Print one line per setting and one of all."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--times", type=int, default=100)
    times = parser.parse_args().times
    found = []
    for setting in SETTINGS:
        rows = pd.DataFrame([simulate(*setting, time) for time in range(times)])
        found.append(rows)
        print(setting, rows.mean().round(3).to_dict(), flush=True)
    print("all", pd.concat(found).mean().round(3).to_dict())


def simulate(members: int, classes: int, persons: int, noise: float, factor: float, time: int) -> dict[str, float]:
    """Whether each interval holds the truth, and the calibration of the submitted probabilities."""
    draws = generator(time, "coverage", members, classes, persons, noise, factor)

    def draw(persons: int, count: int) -> tuple[EvaluationRows, Candidates]:
        """Labels and groups, and two models: means of `count` members, each of noise of its own."""
        labels = np.repeat(draws.integers(0, classes, persons), 5)
        shared = 2 * np.eye(classes)[labels] + 0.7 * np.repeat(draws.normal(size=(persons, classes)), 5, axis=0)
        shared += 0.7 * draws.normal(size=shared.shape)
        models = [
            np.mean([softmax(factor * (shared + own * draws.normal(size=shared.shape))) for _ in range(count)], axis=0)
            for own in (noise, 1.3 * noise)
        ]
        rows = EvaluationRows(labels, np.arange(len(labels)) // 5 % 5, np.repeat(np.arange(persons), 5))
        return rows, Candidates(("a/identity", "b/identity"), ("a", "b"), np.stack(models).astype(np.float32))

    space = named_label_space([f"c{number}" for number in range(classes)], [])
    rows, oof = draw(200, 1)
    fitted = compare_methods(oof, rows, space, VOTE.model_copy(update={"draws": 100}), 0).results
    rows, kept_out = draw(persons, members)
    scored = score_on_reserve(kept_out, rows, fitted, space, VOTE, time)
    crossed = scored.crossed
    sums = group_sums(rows.labels, crossed.probabilities, rows.groups, classes, crossed.codes)
    drawn = bootstrap({"": sums}, VOTE.draws, time)[""]
    rows, test = draw(3000, members)
    params = scored.results[scored.chosen].params
    raw = apply_method(test, params, space)
    submitted = apply_scaling(raw, scored.scaling)
    truth = scores(group_sums(rows.labels, submitted, rows.groups, classes, choose_classes(raw, params)))
    best = apply_temperature(raw, fit_temperature(raw, rows.labels))
    points = scores(sums)
    low_high = {metric: reflected_interval(drawn[metric], points[metric]) for metric in METRICS}
    return {metric: float(low <= truth[metric] <= high) for metric, (low, high) in low_high.items()} | {
        "loss": truth["log_loss"],
        "loss_of_mean": log_loss(rows.labels, raw),
        "best_loss": log_loss(rows.labels, best),
        "ece": truth["ece"],
        "ece_of_mean": ece(rows.labels, raw),
        "best_ece": ece(rows.labels, best),
    }


if __name__ == "__main__":
    main()
