"""How often the interval of a refit's forecast holds the truth, in simulations with known learning curves.

    .venv/bin/python benchmarks/learning_curve.py [RUNS]

Simulated: persons of four classes with five photographs each, hard for every network alike; a network knows the more
the more persons it learnt from, by a power law, with noise of its own in every image and in what it knows. Four points
of the curve, as with the defaults, and the mean of some networks of all persons, scored on 4,000 new persons and on 40
of them.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "workflow" / "scripts"))

import numpy as np
import numpy.typing as npt

from foldvote.data.label_space import LabelSpace
from foldvote.evaluation.learning_curve import forecast_score, gain_of_averaging
from foldvote.evaluation.metric_bootstrap import Scored, score_rows
from foldvote.evaluation.metric_registry import Answers
from foldvote.evaluation.probabilities import softmax
from foldvote.runtime.seeding import generator

Floats = npt.NDArray[np.float64]
Codes = npt.NDArray[np.int64]
SPACE, SHOTS, NEW, TESTS, DRAWS = LabelSpace(("a", "b", "c", "d")), 5, 4000, 40, 300
SHARES = np.asarray([0.5, 0.65, 0.8, 1.0])
METRICS = ("accuracy", "macro_f1", "log_loss")
BASE = {"persons": 60, "folds": 3, "networks": 3, "power": 0.5, "own": 0.08}
SETTINGS: list[dict[str, float]] = [
    {},
    {"own": 0.02},
    {"own": 0.2},
    {"power": 0.25},
    {"power": 1.0},
    {"persons": 120, "folds": 5, "networks": 5},
]


def images(draws: np.random.Generator, persons: int) -> tuple[Codes, Floats]:
    """Labels of several images of each person, and how hard they are."""
    labels = np.repeat(draws.integers(0, 4, persons), SHOTS)
    of_person = np.repeat(draws.normal(size=(persons, 4)), SHOTS, axis=0)
    return labels, 0.8 * of_person + 0.5 * draws.normal(size=(persons * SHOTS, 4))


def network(
    draws: np.random.Generator, labels: Codes, hard: Floats, persons: float, power: float, own: float
) -> Floats:
    """Probabilities of a network that learnt from so many persons."""
    known = 2.4 - 6 * persons**-power + own * draws.normal()
    return softmax(known * np.eye(4)[labels] + hard + 0.7 * draws.normal(size=hard.shape))


def scored(labels: Codes, rows: dict[str, Floats], draws: int, seed: int) -> dict[str, Scored]:
    """The scores of some predictions of the same images."""
    answers = {name: Answers.of(labels, probabilities) for name, probabilities in rows.items()}
    return score_rows(answers, np.arange(len(labels)) // SHOTS, SPACE, [], draws, seed)


def simulated(seed: int, setting: dict[str, float]) -> dict[str, tuple[float, float, bool, bool]]:
    """By metric the errors of the forecast and of the folds' score, and whether the two intervals hold."""
    persons, folds, networks = (int(setting[name]) for name in ("persons", "folds", "networks"))
    shape = setting["power"], setting["own"]
    draws = generator(seed, "simulated curve")
    labels, hard = images(draws, persons)
    fold, counts = np.repeat(np.arange(persons) % folds, SHOTS), SHARES * persons * (folds - 1) / folds
    rows = {str(place): np.empty((len(labels), 4)) for place in range(len(counts))}
    for place, count in enumerate(counts):
        for chosen in (fold == number for number in range(folds)):
            rows[str(place)][chosen] = network(draws, labels[chosen], hard[chosen], count, *shape)
    pair = (rows[str(len(counts) - 2)] + rows[str(len(counts) - 1)]) / 2
    found = scored(labels, rows | {"pair": pair}, DRAWS, seed)
    new, harder = images(draws, NEW)
    whole = np.mean([network(draws, new, harder, persons, *shape) for _ in range(networks)], axis=0)
    truth, few = (
        scored(new[: number * SHOTS], {"": whole[: number * SHOTS]}, 2, 0)[""].points for number in (NEW, TESTS)
    )
    result = {}
    for metric in METRICS:
        values = np.asarray([found[str(place)].points[metric] for place in range(len(counts))])
        drawn = np.stack([found[str(place)].draws[metric] for place in range(len(counts))])
        two = found["pair"]
        one = float(values[-2:].mean()), drawn[-2:].mean(axis=0)
        gain = gain_of_averaging(one[0], two.points[metric], one[1], two.draws[metric], networks)
        made = forecast_score(counts, values, drawn, persons, gain, (persons / TESTS) ** 0.5, seed)
        held = made.low <= truth[metric] <= made.high, made.test_low <= few[metric] <= made.test_high
        result[metric] = (made.value - truth[metric], float(values[-1]) - truth[metric], *held)
    return result


def main() -> None:
    """Print a table."""
    runs = int(sys.argv[1]) if len(sys.argv) > 1 else 200
    print("| setting | metric | mean error | of the folds' score | truth held | test held |\n|---|---|---|---|---|---|")
    for setting in SETTINGS:
        found = [simulated(seed, BASE | setting) for seed in range(runs)]
        for metric in METRICS:
            error, naive, truth, test = np.asarray([one[metric] for one in found], np.float64).mean(axis=0)
            told = ", ".join(f"{name} {value:g}" for name, value in setting.items()) or "base"
            print(f"| {told} | {metric} | {error:+.3f} | {naive:+.3f} | {truth:.2f} | {test:.2f} |")


if __name__ == "__main__":
    main()
