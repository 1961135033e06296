"""Rules that calibrate the mean of K members when only out-of-fold predictions of single members have labels.

    .venv/bin/python benchmarks/calibration_rules.py [--page docs/voting.md]

Simulated: persons with several photographs each; a member's logits are a part that all members share plus noise of its
own, made too certain or too uncertain by a factor, with label smoothing as training would add it. Each rule gets what a
run without a reserve has: labels with one member per image, and all members for unlabelled images. It is then scored on
the labels of these. Settings: 3, 5 or 10 members; 2, 6 or 18 classes; a factor of 0.5 to 4; noise of 0.5 to 1.5; label
smoothing of 0, 0.05 or 0.1.
"""

import argparse
import sys
from collections.abc import Iterator
from itertools import product
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "workflow" / "scripts"))

import numpy as np
import numpy.typing as npt
import pandas as pd

from foldvote.ensemble.scaling import scaling_of_mean
from foldvote.evaluation.calibration import apply_temperature, ece, fit_temperature
from foldvote.evaluation.metrics import log_loss
from foldvote.evaluation.probabilities import softmax
from foldvote.runtime.seeding import generator

Floats = npt.NDArray[np.float64]
BEGIN, END = "<!-- table: benchmarks/calibration_rules.py -->", "<!-- end of table -->"
RULES = {
    "mean": "the mean as it is",
    "oof": "temperature fitted on out-of-fold predictions, on the mean",
    "members": "the same on each member, then the mean",
    "derived": "derived from the spread of the members (`calibration: auto`)",
    "best": "fitted on the labels that are scored (not to be had)",
}


def main() -> None:
    """Print a table, or write it into a page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--persons", type=int, default=200, help="labelled ones; 300 are scored")
    parser.add_argument("--page", type=Path, help="page whose table, between two marks, is replaced")
    asked = parser.parse_args()
    table = summary(pd.DataFrame([row for setting in settings() for row in simulate(*setting, asked.persons)]))
    print(table)
    if asked.page:
        before, _, rest = asked.page.read_text(encoding="utf-8").partition(BEGIN)
        asked.page.write_text(f"{before}{BEGIN}\n{table}\n{END}{rest.partition(END)[2]}", encoding="utf-8")


def settings() -> Iterator[tuple[int, int, float, float, float]]:
    """Members, classes, factor of certainty, noise of a member, label smoothing."""
    return product((3, 5, 10), (2, 6, 18), (0.5, 1.0, 2.0, 4.0), (0.5, 1.0, 1.5), (0.0, 0.05, 0.1))


def simulate(
    members: int, classes: int, factor: float, noise: float, smoothing: float, persons: int
) -> list[dict[str, float | str]]:
    """One row per rule: log-loss and ECE beside those of the mean and of the best temperature."""
    draws = generator(0, "calibration", members, classes, factor, noise, smoothing)

    def draw(persons: int, count: int) -> tuple[npt.NDArray[np.int64], Floats]:
        """Labels, and probabilities (members, images, classes): five photographs of each person."""
        labels = np.repeat(draws.integers(0, classes, persons), 5)
        shared = 2 * np.eye(classes)[labels] + 0.7 * np.repeat(draws.normal(size=(persons, classes)), 5, axis=0)
        shared += 0.7 * draws.normal(size=shared.shape)
        own = softmax(factor * (shared + noise * draws.normal(size=(count, *shared.shape))))
        return labels, (1 - smoothing) * own + smoothing / classes

    labels, [oof] = draw(persons, 1)
    truth, singles = draw(300, members)
    return score_rules(oof, labels, singles, truth)


def score_rules(
    oof: Floats, labels: npt.NDArray[np.int64], singles: Floats, truth: npt.NDArray[np.int64]
) -> list[dict[str, float | str]]:
    """One row per rule, scored on the mean of `singles` (members, images, classes)."""
    temperature, mean = fit_temperature(oof, labels), singles.mean(axis=0)
    best = fit_temperature(mean, truth)
    derived = scaling_of_mean(temperature, 1, list(singles), mean)["temperature"]
    found = {
        "mean": mean,
        "oof": apply_temperature(mean, temperature),
        "members": np.mean([apply_temperature(own, temperature) for own in singles], axis=0),
        "derived": apply_temperature(mean, derived),
        "best": apply_temperature(mean, best),
    }
    least = ece(truth, found["best"])
    loss_of_mean = log_loss(truth, mean)
    return [
        {
            "rule": rule,
            "loss": log_loss(truth, probabilities),
            "loss_over_mean": log_loss(truth, probabilities) - loss_of_mean,
            "ece": ece(truth, probabilities),
            "ece_over_best": ece(truth, probabilities) - least,
        }
        for rule, probabilities in found.items()
    ]


def summary(rows: pd.DataFrame) -> str:
    """A table in Markdown: one row per rule, over all settings."""
    lines = [
        "| rule | log-loss, mean | against the mean as it is: mean, worst | worse by more than 0.005 | ECE, mean | "
        "within 0.02 of the best |",
        "|---|---|---|---|---|---|",
    ]
    for rule, text in RULES.items():
        of = rows[rows["rule"] == rule]
        over = of["loss_over_mean"]
        lines.append(
            f"| {text} | {of['loss'].mean():.3f} | {over.mean():+.3f}, {over.max():+.3f} "
            f"| {(over > 0.005).mean():.0%} | {of['ece'].mean():.3f} | "
            f"{(of['ece_over_best'] <= 0.02).mean():.0%} |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
