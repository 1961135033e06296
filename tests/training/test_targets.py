"""Training targets: restricted label spaces, moved borders, soft targets, class counts."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from foldvote.config.layout_facts import NumericFactor
from foldvote.config.treatment import Treatment
from foldvote.data.label_space import LabelSpace, factor_label_space
from foldvote.data.layouts.maskbase_labels import age_band
from foldvote.errors import UserError
from foldvote.training.targets import class_counts, training_targets

AGES = ("under30", "30to59", "60plus")
HOME = factor_label_space({"mask": ("wear", "incorrect", "not-wear"), "gender": ("male", "female"), "age": AGES})
TURNED = factor_label_space({"age": AGES, "mask": ("wear", "not-wear")})
AGE_ALONE = factor_label_space({"age": AGES})
BORDERS = (30, 60)
NUMERIC = NumericFactor(name="age", column="age_years", borders=BORDERS)


def age_rows(years: list[float], treatment: Treatment) -> list[list[float]]:
    labels = np.searchsorted(BORDERS, years, side="right")
    return training_targets(AGE_ALONE, labels, np.array(years, float), treatment, NUMERIC).tolist()


# --- restricted label spaces


def test_all_factors_are_the_label_space_itself() -> None:
    label_space, codes = HOME.restricted(["age", "mask", "gender"])
    assert label_space is HOME and codes.tolist() == list(range(18)) and codes.dtype == np.int64


@pytest.mark.parametrize("factors", [["age"], ["mask"], ["age", "mask"], ["gender", "age"], ("gender",)])
def test_a_restricted_label_space_keeps_levels_and_order(factors: list[str]) -> None:
    label_space, codes = HOME.restricted(factors)
    assert list(label_space.factors) == [name for name in HOME.factors if name in factors]
    assert codes.shape == (18,) and codes.dtype == np.int64 and set(codes) == set(range(len(label_space.classes)))
    for name in factors:
        assert np.array_equal(label_space.level_codes(name)[codes], HOME.level_codes(name))


def test_a_restricted_label_space_by_hand() -> None:
    label_space, codes = HOME.restricted(["age", "mask"])
    assert label_space.classes[:4] == ("wear-under30", "wear-30to59", "wear-60plus", "incorrect-under30")
    assert codes.tolist() == [0, 1, 2, 0, 1, 2, 3, 4, 5, 3, 4, 5, 6, 7, 8, 6, 7, 8]


@pytest.mark.parametrize(
    ("label_space", "factors", "told"),
    [
        (HOME, ["hat", "age"], "factors: no factor hat; the classes' factors are: mask, gender, age"),
        (LabelSpace(("a", "b")), ["age"], "factors: no factor age; the classes' factors are: none"),
        (HOME, [], "factors: no factor is named"),
    ],
)
def test_unknown_factors_are_refused(label_space: LabelSpace, factors: list[str], told: str) -> None:
    with pytest.raises(UserError, match=told):
        label_space.restricted(factors)


# --- treatments


def test_without_a_treatment_the_labels_are_as_they_were() -> None:
    labels = np.array([3, 1, 2])
    assert training_targets(LabelSpace(("a", "b", "c", "d")), labels, None, Treatment(), None) is labels


def test_a_moved_border_changes_the_band_and_nothing_else() -> None:
    labels = np.array([HOME.code({"mask": "incorrect", "gender": "female", "age": age}) for age in AGES])
    moved = Treatment(age_borders=(30, 58))
    targets = training_targets(HOME, labels, np.array([29.0, 58.0, 60.0]), moved, NUMERIC)
    assert targets.dtype == np.float32 and targets.shape == (3, 18)
    assert (
        targets.argmax(axis=1).tolist() == [labels[0], labels[2], labels[2]] and targets.max(axis=1).tolist() == [1] * 3
    )
    assert age_rows([57, 57.9, 58], moved) == [[0, 1, 0], [0, 1, 0], [0, 0, 1]]


def test_a_ramp_by_hand() -> None:
    soft = Treatment(soft_years=2)
    assert age_rows([20, 27, 28.5, 29, 29.5, 30, 31, 32, 45], soft) == [
        [1, 0, 0], [1, 0, 0], [0.875, 0.125, 0], [0.625, 0.375, 0], [0.625, 0.375, 0],
        [0.375, 0.625, 0], [0.125, 0.875, 0], [0, 1, 0], [0, 1, 0],
    ]  # fmt: skip
    assert age_rows([58, 59, 60, 62], soft) == [[0, 0.875, 0.125], [0, 0.625, 0.375], [0, 0.375, 0.625], [0, 0, 1]]
    both = Treatment(age_borders=(30, 58), soft_years=2)
    assert age_rows([58, 60], both) == [[0, 0.375, 0.625], [0, 0, 1]]


@given(st.integers(1, 99), st.integers(0, 30), st.floats(0, 20))
@settings(max_examples=60, deadline=None)
def test_completed_years_are_equally_far_from_a_border_on_both_sides(border: int, away: int, soft: float) -> None:
    below, above = age_rows([border - 1 - away, border + away], Treatment(age_borders=(border, 200), soft_years=soft))
    assert below[0] == pytest.approx(above[1]) and below[1] == pytest.approx(above[0])
    assert above[1] > 0.5


def test_each_border_has_its_own_ramp() -> None:
    treatment = Treatment(soft_years=(2, 0))
    assert age_rows([29, 59, 60], treatment) == [[0.625, 0.375, 0], [0, 1, 0], [0, 0, 1]]
    assert treatment.active and not Treatment(soft_years=(0, 0)).active


def test_ramps_that_overlap_share_among_three() -> None:
    rows = age_rows([40, 41, 42], Treatment(age_borders=(40, 42), soft_years=2))
    assert rows == [[0.375, 0.5, 0.125], [0.125, 0.5, 0.375], [0, 0.375, 0.625]]


def test_unknown_years_keep_the_label() -> None:
    labels = np.array([2, 1, 7])
    one_hot = np.eye(18, dtype=np.float32)
    soft = Treatment(soft_years=3)
    assert np.array_equal(training_targets(HOME, labels, None, soft, NUMERIC), one_hot[labels])
    some = training_targets(HOME, labels, np.array([np.nan, 31.0, np.nan]), soft, NUMERIC)
    assert np.array_equal(some[[0, 2]], one_hot[[2, 7]]) and some[1].max() < 1


@pytest.mark.parametrize(
    "treatment", [Treatment(soft_years=2), Treatment(age_borders=(29, 59)), Treatment(age_borders=(20, 30))]
)
def test_a_corrected_band_is_not_undone_by_the_number_that_was_not_corrected(treatment: Treatment) -> None:
    labels = np.array([HOME.code({"mask": "wear", "gender": "male", "age": age}) for age in ("60plus", "under30")])
    targets = training_targets(HOME, labels, np.array([45.0, 30.0]), treatment, NUMERIC)
    assert np.array_equal(targets, np.eye(18, dtype=np.float32)[labels])


@given(
    st.sampled_from([HOME, TURNED, AGE_ALONE]),
    st.tuples(st.floats(1, 99), st.floats(1, 99)).filter(lambda two: two[0] < two[1]),
    st.one_of(st.floats(0, 20), st.tuples(st.floats(0, 20), st.floats(0, 20))),
    st.lists(st.one_of(st.floats(0, 110), st.just(float("nan"))), max_size=12),
    st.integers(0, 1000),
)
@settings(max_examples=150, deadline=None)
def test_rows_are_probabilities_and_other_factors_keep_their_levels(
    label_space: LabelSpace,
    borders: tuple[float, float],
    soft: float | tuple[float, float],
    ages: list[float],
    seed: int,
) -> None:
    labels = np.random.default_rng(seed).integers(0, len(label_space.classes), len(ages))
    treatment = Treatment(age_borders=borders, soft_years=soft)
    targets = training_targets(label_space, labels, np.array(ages, float), treatment, NUMERIC)
    assert targets.shape == (len(ages), len(label_space.classes)) and targets.dtype == np.float32
    assert (targets >= 0).all() and np.allclose(targets.sum(axis=1), 1, atol=1e-6)
    for name in set(label_space.factors) - {"age"}:
        levels = label_space.level_codes(name)
        kept = levels[None, :] == levels[labels][:, None]
        assert not targets[~kept].any()


@given(st.integers(1, 100))
@settings(max_examples=40, deadline=None)
def test_the_datas_own_borders_without_a_ramp_are_the_true_bands(age: int) -> None:
    row = age_rows([age], Treatment(age_borders=BORDERS))[0]
    assert AGES[int(np.argmax(row))] == age_band(age, BORDERS) and max(row) == 1


@pytest.mark.parametrize(
    ("label_space", "numeric"),
    [
        (LabelSpace(("a", "b")), NUMERIC),
        (HOME.restricted(["mask"])[0], NUMERIC),
        (factor_label_space({"age": ("young", "old")}), NUMERIC),
        (HOME, None),
    ],
)
@pytest.mark.parametrize("treatment", [Treatment(soft_years=2), Treatment(age_borders=(30, 58))])
def test_treatments_without_bands_are_refused(
    label_space: LabelSpace, numeric: NumericFactor | None, treatment: Treatment
) -> None:
    with pytest.raises(UserError, match="need the home task's factor age"):
        training_targets(label_space, np.zeros(2, np.int64), np.array([20.0, 40.0]), treatment, numeric)


# --- counts


def test_counts_of_labels_and_of_shared_targets() -> None:
    counts = class_counts(np.array([0, 2, 2]), 4)
    assert counts.tolist() == [1, 0, 2, 0] and counts.dtype == np.int64
    soft = class_counts(np.full((30, 3), [0.1, 0.2, 0.7], np.float32), 3)
    assert soft.tolist() == [3.0, 6.0, 21.0] and soft.dtype == np.float64
    labels = np.random.default_rng(0).integers(0, 18, 200)
    plain = training_targets(HOME, labels, None, Treatment(soft_years=1), NUMERIC)
    assert np.array_equal(class_counts(plain, 18), class_counts(labels, 18))
