"""The learning curve over groups: it recovers a known curve, and its interval holds the truth as often as it says."""

import numpy as np
import pytest

from foldvote.data.label_space import LabelSpace
from foldvote.evaluation.learning_curve import SHAPES, Gain, forecast_score, gain_of_averaging
from foldvote.evaluation.metric_bootstrap import score_rows
from foldvote.evaluation.metric_registry import Answers
from foldvote.evaluation.probabilities import softmax
from foldvote.runtime.seeding import generator

SPACE, SHOTS, FOLDS = LabelSpace(("a", "b", "c", "d")), 5, 3
NONE = Gain(0.0, np.zeros(100))


def repeated(values: np.ndarray, draws: int = 100) -> np.ndarray:
    return np.repeat(values[:, None], draws, axis=1)


@pytest.mark.parametrize("shape", SHAPES)
def test_a_curve_of_each_shape_is_in_the_interval_and_the_middle_one_is_prolonged_exactly(shape: str) -> None:
    def curve(groups: np.ndarray) -> np.ndarray:
        return 0.5 + 0.3 * SHAPES[shape](groups) * (1 if shape == "logarithm" else -1)

    groups = np.asarray([50.0, 65, 80, 100])
    values, truth = curve(groups), float(curve(np.asarray(125.0)))
    made = forecast_score(groups, values, repeated(values), 125, NONE, 0.0, 1)
    assert made.low - 1e-9 <= truth <= made.high + 1e-9
    assert abs(made.value - truth) <= (1e-9 if shape == "root" else (truth - values[-1]) / 2)


def test_a_level_curve_forecasts_its_level_and_the_gain_of_averaging_is_added() -> None:
    values = np.full(4, 0.7)
    groups = np.asarray([50.0, 65, 80, 100])
    made = forecast_score(groups, values, repeated(values), 125, Gain(0.02, np.full(100, 0.02)), 0.0, 1)
    assert [made.value, made.low, made.high] == pytest.approx([0.72] * 3)


def test_a_score_stays_within_its_limits() -> None:
    values = np.asarray([0.9, 0.95, 0.98, 1.0])
    made = forecast_score(np.asarray([5.0, 6, 8, 10]), values, repeated(values), 20, NONE, 0.0, 1, (0.0, 1.0))
    assert made.value == made.high == made.test_high == 1


def test_averaging_gains_as_the_noise_of_so_many_networks_falls() -> None:
    one, two = np.asarray([0.6, 0.5]), np.asarray([0.65, 0.55])
    gain = gain_of_averaging(0.6, 0.65, one, two, 5)
    assert gain.value == pytest.approx(0.05 * (1 - 1 / 5) / (1 - 1 / 2)) and gain.drawn == pytest.approx([0.08, 0.08])
    assert gain_of_averaging(0.6, 0.65, one, two, 2).value == pytest.approx(0.05)
    assert gain_of_averaging(0.6, 0.65, one, two, 1).value == pytest.approx(0)


def network(draws: np.random.Generator, labels: np.ndarray, hard: np.ndarray, groups: float) -> np.ndarray:
    """Probabilities of a network that learnt from so many groups, of images that are hard for every network alike."""
    known = 2.4 - 6 * groups**-0.5 + 0.08 * draws.normal()
    return softmax(known * np.eye(4)[labels] + hard + 0.7 * draws.normal(size=hard.shape))


def images(draws: np.random.Generator, persons: int) -> tuple[np.ndarray, np.ndarray]:
    """Labels of several images of each person, and how hard they are."""
    labels = np.repeat(draws.integers(0, 4, persons), SHOTS)
    of_person = np.repeat(draws.normal(size=(persons, 4)), SHOTS, axis=0)
    return labels, 0.8 * of_person + 0.5 * draws.normal(size=(persons * SHOTS, 4))


def simulated(seed: int, persons: int = 60, networks: int = 3) -> tuple[dict[str, float], dict[str, float], list[bool]]:
    """One run with a known curve: errors of the forecast and of the folds' score, and what the intervals hold."""
    draws = generator(seed, "simulated curve")
    labels, hard = images(draws, persons)
    fold, groups = np.repeat(np.arange(persons) % FOLDS, SHOTS), np.repeat(np.arange(persons), SHOTS)
    counts = np.asarray([0.5, 0.65, 0.8, 1]) * persons * (FOLDS - 1) / FOLDS
    means = []
    for count in counts:
        means.append(np.empty((len(labels), 4)))
        for own in (fold == number for number in range(FOLDS)):
            means[-1][own] = network(draws, labels[own], hard[own], count)
    answers = {str(place): Answers.of(labels, mean) for place, mean in enumerate(means)}
    answers["pair"] = Answers.of(labels, (means[-2] + means[-1]) / 2)
    scored = score_rows(answers, groups, SPACE, [], 200, seed)
    new, harder = images(draws, 2000)
    whole = np.mean([network(draws, new, harder, persons) for _ in range(networks)], axis=0)
    tests = 40
    truth = score_rows({"": Answers.of(new, whole)}, np.arange(len(new)) // SHOTS, SPACE, [], 2, 0)[""].points
    few = Answers.of(new[: tests * SHOTS], whole[: tests * SHOTS])
    on_test = score_rows({"": few}, np.arange(tests * SHOTS) // SHOTS, SPACE, [], 2, 0)[""].points
    error, naive, holds = {}, {}, []
    for metric in ("accuracy", "macro_f1", "log_loss"):
        values = np.asarray([scored[str(place)].points[metric] for place in range(4)])
        drawn = np.stack([scored[str(place)].draws[metric] for place in range(4)])
        pair = scored["pair"]
        ends = float(values[-2:].mean()), pair.points[metric], drawn[-2:].mean(axis=0), pair.draws[metric]
        gain = gain_of_averaging(*ends, networks)
        made = forecast_score(counts, values, drawn, persons, gain, (persons / tests) ** 0.5, seed)
        error[metric], naive[metric] = made.value - truth[metric], values[-1] - truth[metric]
        holds += [made.low <= truth[metric] <= made.high, made.test_low <= on_test[metric] <= made.test_high]
    return error, naive, holds


def test_simulated_curves_are_forecast_without_bias_and_covered_about_as_often_as_the_interval_says() -> None:
    runs = [simulated(seed) for seed in range(60)]
    for metric in ("accuracy", "macro_f1", "log_loss"):
        error, naive = (np.mean([run[place][metric] for run in runs]) for place in (0, 1))
        assert abs(error) < abs(naive) / 3, (metric, error, naive)
    covered = np.mean([run[2] for run in runs], axis=0)
    assert (covered >= 0.88).all(), covered
    assert np.mean(covered) <= 0.995, covered
