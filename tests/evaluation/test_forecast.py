"""Forecasts of boards: identical rows, one far better row, sizes, pairs, and whether the probabilities are true."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from foldvote.evaluation.bootstrap import board_draws, group_sums, scores
from foldvote.evaluation.forecast import LEADS, best_pairs, forecast, lead_probability, simulate_boards
from foldvote.evaluation.intervals import interval

CLASSES, IMAGES = 4, 5  # images of each group


def drawn_rows(skills, groups=60, seed=0, shared=1.0):
    """Sums of rows whose chance to be right is a skill plus what the images of a group share."""
    draws = np.random.default_rng(seed)
    labels = np.tile(np.arange(groups) % CLASSES, (IMAGES, 1)).T.ravel()
    codes = np.repeat(np.arange(groups), IMAGES)
    hard = shared * np.repeat(draws.normal(0, 0.15, groups), IMAGES)
    rows = {}
    for name, skill in skills.items():
        right = draws.random(len(labels)) < np.clip(skill + hard, 0, 1)
        said = np.where(right, labels, (labels + 1) % CLASSES)
        probabilities = np.where(np.eye(CLASSES)[said] > 0, 0.7, 0.1)
        rows[name] = group_sums(labels, probabilities, codes, CLASSES)
    return rows


def told(rows, score="macro_f1", sizes=(50, 50), draws=600, seed=0):
    return forecast(simulate_boards(rows, score, sizes, draws, seed), score)


def test_identical_rows_cannot_be_told_apart_and_no_choice_loses_anything() -> None:
    one = drawn_rows({"a": 0.6})["a"]
    found = told({"a": one, "b": one})
    assert found["leads"]["a"]["b"] == [0.5] * len(LEADS)
    assert [row["best_on_private"] for row in found["rows"]] == [1.0, 1.0]
    assert [choice["loss"] for choice in found["choices"]] == [0.0] * 6
    assert found["board"]["leader_is_best_on_private"] == 1.0
    assert found["board"]["pairs_in_true_order"] == 1.0
    assert found["board"]["places_moved"] == 0.0


def test_a_far_better_row_wins_on_every_board_and_is_in_the_best_pair() -> None:
    found = told(drawn_rows({"weak": 0.3, "strong": 0.9, "weaker": 0.2}))
    assert [row["row"] for row in found["rows"]] == ["strong", "weak", "weaker"]
    assert found["rows"][0]["best_on_private"] == 1.0
    assert found["pair"][0] == "strong"
    assert found["board"]["leader_is_truly_best"] == 1.0
    assert max(found["leads"]["weak"]["strong"]) < 0.01
    assert min(found["leads"]["strong"]["weak"]) > 0.99
    assert found["choices"][1]["loss"] == 0.0


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10_000))
def test_a_larger_public_board_misleads_less(seed: int) -> None:
    rows = drawn_rows({"a": 0.50, "b": 0.55, "c": 0.60, "d": 0.65}, groups=80, seed=seed)
    few, many = (told(rows, "accuracy", (size, 300), 400, seed) for size in (8, 2000))
    assert few["board"]["gap_median"] > many["board"]["gap_median"]
    assert few["board"]["pairs_in_true_order"] < many["board"]["pairs_in_true_order"]
    assert few["board"]["leader_falls"] > many["board"]["leader_falls"]
    assert few["choices"][1]["loss"] > many["choices"][1]["loss"]
    widths = [found["rows"][0]["public"]["high"] - found["rows"][0]["public"]["low"] for found in (few, many)]
    assert widths[0] > widths[1]


def test_of_losses_the_lower_one_is_better() -> None:
    found = told(drawn_rows({"weak": 0.3, "strong": 0.9}), score="log_loss")
    assert [row["row"] for row in found["rows"]] == ["strong", "weak"]
    first, second = (row["private"]["expected"] for row in found["rows"])
    assert 0 < first < second
    hindsight, leader = found["choices"][-1], found["choices"][1]
    assert hindsight["private"]["expected"] <= leader["private"]["expected"]
    assert min(choice["loss"] for choice in found["choices"]) >= 0


def test_the_order_of_rows_and_the_number_of_calls_change_nothing() -> None:
    rows = drawn_rows({"a": 0.5, "b": 0.6, "c": 0.55})
    assert told(rows) == told(dict(reversed(rows.items()))) == told(rows)
    assert told(rows) != told(rows, seed=1)


def test_a_pair_of_different_rows_beats_a_pair_of_like_ones() -> None:
    draws = np.random.default_rng(0)
    own, other = draws.normal(0, 1, (2, 2000))
    private = np.stack([own, own - 0.01, other - 0.1])  # the best row, nearly the same again, one that errs elsewhere
    assert best_pairs(private)[0] == (0, 2)
    assert best_pairs(private[:1]) == ((0,), (0,))


def test_the_pair_that_holds_the_best_row_most_often_can_be_another_one() -> None:
    # The first row is never bad; each of the others is the best one by little in four draws, and bad in all others.
    private = np.stack([np.full(10, 0.5), np.zeros(10), np.zeros(10)])
    private[1, :4] = private[2, 4:8] = 0.51
    assert best_pairs(private) == ((0, 1), (1, 2))


def test_a_lead_says_what_counting_draws_says() -> None:
    draws = np.random.default_rng(1)
    truth = draws.normal(0.01, 0.02, 200_000)
    public = truth + draws.normal(0, 0.03, 200_000)
    for lead in (-0.02, 0.0, 0.02, 0.05):
        near = np.abs(public - lead) < 0.002
        assert lead_probability(truth, public, lead) == pytest.approx(np.mean(truth[near] > 0), abs=0.02)
    leads = [lead_probability(truth, public, lead) for lead in LEADS]
    assert leads == sorted(leads)
    assert lead_probability(np.zeros(9), np.zeros(9), 0.1) == 0.5
    assert lead_probability(np.ones(9), np.ones(9), -0.1) == 1.0


def test_ranges_hold_real_boards_and_probabilities_come_true() -> None:
    """Known groups and boards are drawn from one large population, whose scores are the true ones."""
    population = drawn_rows({"a": 0.60, "b": 0.63}, groups=4000)
    true = {name: scores(sums)["accuracy"] for name, sums in population.items()}
    inside, foretold, happened = [], [], []
    for trial in range(150):
        draws = np.random.default_rng(trial)
        parts = [draws.choice(4000, size, replace=False) for size in (60, 40, 40)]
        known, public, private = (
            {name: type(sums)(sums.values[part], CLASSES) for name, sums in population.items()} for part in parts
        )
        boards = simulate_boards(known, "accuracy", (40, 40), draws=300, seed=trial)
        seen = {name: scores(sums)["accuracy"] for name, sums in public.items()}
        ahead, behind = sorted(boards.names, key=lambda name: -seen[name])
        a, b = boards.names.index(ahead), boards.names.index(behind)
        truths, publics = boards.truth[a] - boards.truth[b], boards.public[a] - boards.public[b]
        foretold.append(lead_probability(truths, publics, seen[ahead] - seen[behind]))
        happened.append(true[ahead] > true[behind])
        low, high = interval(boards.private[0])
        inside.append(low <= scores(private[boards.names[0]])["accuracy"] <= high)
    assert 0.90 <= np.mean(inside) <= 0.99
    assert np.mean(foretold) == pytest.approx(np.mean(happened), abs=0.1)
    sure = np.asarray(foretold) > 0.9
    assert sure.sum() > 20
    assert np.mean(np.asarray(happened)[sure]) > 0.85


def test_the_spread_of_a_board_is_that_of_the_known_groups_and_of_its_own() -> None:
    rows = drawn_rows({"a": 0.6}, groups=50)
    of_groups = rows["a"].values
    variance = np.var(of_groups[:, 18 : 18 + CLASSES].sum(axis=1) / of_groups[:, 0])
    truth, board = board_draws(rows, [25], draws=4000)
    assert np.var(truth["a"]["accuracy"]) == pytest.approx(variance / 50, rel=0.1)
    assert np.var(board["a"]["accuracy"]) == pytest.approx(variance / 50 + variance / 25, rel=0.1)


def test_many_groups_are_drawn_in_bags_with_the_same_spread() -> None:
    rows = drawn_rows({"a": 0.6}, groups=9000)
    of_groups = rows["a"].values
    variance = np.var(of_groups[:, 18 : 18 + CLASSES].sum(axis=1) / of_groups[:, 0])
    truth, board = board_draws(rows, [900], draws=600)
    assert np.std(truth["a"]["accuracy"]) == pytest.approx(np.sqrt(variance / 9000), rel=0.15)
    assert np.std(board["a"]["accuracy"]) == pytest.approx(np.sqrt(variance * (1 / 9000 + 1 / 900)), rel=0.15)


def test_rows_of_other_groups_and_empty_boards_are_refused() -> None:
    rows = drawn_rows({"a": 0.6})
    with pytest.raises(ValueError, match="the same groups"):
        board_draws(rows | {"b": drawn_rows({"b": 0.5}, groups=50)["b"]}, [10])
    with pytest.raises(ValueError, match="one group or more"):
        board_draws(rows, [0])
