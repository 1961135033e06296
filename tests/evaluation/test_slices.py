"""Scores by slice: they add up, agree with scikit-learn, and small slices do not come first."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import f1_score, log_loss

from foldvote.config.base import OUR_NAMES
from foldvote.data.label_space import LabelSpace
from foldvote.data.manifest_table import ONLY, WEIGHT, manifest_schema
from foldvote.evaluation.slices import border_table, slice_scores, slices_of, wilson
from foldvote.runtime.seeding import generator
from support.simulated_persons import HOME, NUMERIC, perfect, simulated


def with_manifest(rows, seed=0):
    """Rows with the columns of a manifest."""
    draws = generator(seed, "manifest")
    person = pd.factorize(rows["profile"])[0]
    years = draws.integers(18, 66, person.max() + 1)[person]
    return rows.assign(
        stratum=[HOME.classes[code] for code in rows["label"]],
        format=draws.choice(["JPEG", "PNG"], len(rows)),
        width=384,
        height=512,
        age_years=pd.array(years, dtype="Int16"),
    )


@given(st.integers(0, 2**32))
@settings(max_examples=8, deadline=None)
def test_the_slices_of_each_kind_hold_all_images_once(seed):
    rows, probabilities, _ = simulated(seed, persons=20)
    rows = with_manifest(rows, seed)
    scores = slice_scores(rows, probabilities, HOME, NUMERIC)
    kinds = {"mask", "gender", "age", "class", "stratum", "fold", "format", "size", "age_years"}
    assert scores.groupby("slice")["images"].sum().to_dict() == dict.fromkeys(kinds, len(rows))
    assert (scores["persons"] <= scores["images"]).all()
    for name in ("accuracy", "macro_f1", "accuracy_mask", "accuracy_gender", "accuracy_age"):
        assert scores[name].between(0, 1).all()
    assert (scores["accuracy_low"] <= scores["accuracy"]).all()
    assert (scores["accuracy"] <= scores["accuracy_high"] + 1e-12).all()
    assert scores["accuracy_high"].is_monotonic_increasing
    order = generator(seed, "order").permutation(len(rows))
    turned = slice_scores(rows.iloc[order], probabilities[order], HOME, NUMERIC)
    pd.testing.assert_frame_equal(turned, scores, rtol=1e-12)
    without = slice_scores(rows, probabilities, HOME)
    assert set(without["slice"]) == kinds - {"age_years"}


def test_no_factor_can_have_the_name_of_a_slice_or_column_of_ours():
    rows, probabilities, _ = simulated(0, persons=20)
    scores = slice_scores(with_manifest(rows), probabilities, HOME)
    ours = {*scores["slice"], *manifest_schema([]).names} - set(HOME.factors)
    ours |= {name.removeprefix("accuracy_") for name in scores if name.startswith("accuracy_")} - set(HOME.factors)
    # The folder split=train is a column as well; the last two are columns where the table has roles or weights.
    assert ours | {"split", ONLY, WEIGHT} == OUR_NAMES


def test_scores_are_those_of_scikit_learn():
    rows, probabilities, _ = simulated(sure=1.0)
    scores = slice_scores(rows, probabilities, HOME).set_index(["slice", "value"])
    part = (rows["fold"] == 2).to_numpy()
    labels, predicted = rows["label"][part], probabilities[part].argmax(axis=1)
    found = scores.loc[("fold", "2")]
    assert found["persons"] == rows.loc[part, "profile"].nunique() == 12
    assert found["accuracy"] == pytest.approx((labels == predicted).mean())
    present = sorted(set(labels))
    assert found["macro_f1"] == pytest.approx(f1_score(labels, predicted, labels=present, average="macro"))
    assert found["log_loss"] == pytest.approx(log_loss(labels, probabilities[part], labels=np.arange(18)))


def test_intervals_count_the_groups_of_the_split():
    rows, probabilities, _ = simulated(sure=1.0)
    alone = slice_scores(rows, probabilities, HOME).set_index(["slice", "value"])
    pairs = rows.assign(group=pd.factorize(rows["profile"])[0] // 10)  # a fold is a person's number modulo 5
    found = slice_scores(pairs, probabilities, HOME).set_index(["slice", "value"]).loc[("fold", "2")]
    low, high = wilson(np.array([found["accuracy"]]), np.array([6]))
    assert found["persons"] == 12 and (found["accuracy_low"], found["accuracy_high"]) == (low[0], high[0])
    own = slice_scores(rows.assign(group=rows["profile"]), probabilities, HOME)
    pd.testing.assert_frame_equal(own.set_index(["slice", "value"]), alone)


def test_a_tiny_slice_does_not_come_before_a_large_bad_one():
    rows, _, _ = simulated(persons=200)
    probabilities = perfect(rows)
    large, tiny = (rows["fold"] == 3).to_numpy(), (rows["profile"] == rows["profile"].iloc[0]).to_numpy()
    spoilt = tiny | (large & (generator(5, "spoilt").random(len(rows)) < 0.5))
    probabilities[spoilt] = np.roll(probabilities[spoilt], 1, axis=1)
    scores = slice_scores(rows.assign(fold=np.where(tiny, 9, rows["fold"])), probabilities, HOME)
    ranked = (scores["slice"] + " " + scores["value"]).tolist()
    assert scores.set_index(["slice", "value"]).loc[("fold", "9"), "accuracy"] == 0
    assert ranked.index("fold 3") < ranked.index("fold 9")
    assert ranked[0] == "fold 3"


def test_years_around_the_borders_stand_alone():
    rows, _, _ = simulated(persons=4)
    years = pd.array([0, 24, 25, 26, 27, 32, 33, 34, 35, 54, 55, 60, 62, 63, 64, 65, None, 58] + [40] * 10, "Int16")
    found = slices_of(rows.assign(age_years=years), HOME, NUMERIC)["age_years"][:18].tolist()
    texts = "00-04 20-24 25-26 25-26 27 32 33-34 33-34 35-39 50-54 55 60 62 63-64 63-64 65-69 unknown 58"
    assert found == texts.split()


def test_sizes_fall_into_octaves_where_there_are_many():
    rows, _, _ = simulated(persons=4)
    side = np.arange(28) + 100
    assert slices_of(rows.assign(width=640, height=480), HOME)["size"].tolist() == ["640x480"] * 28
    found = slices_of(rows.assign(width=side, height=2 * side), HOME)["size"]
    assert found.tolist() == ["side 64-127"] * 28


def test_the_border_table_counts_the_older_band():
    rows, _, _ = simulated(persons=9)
    person = np.arange(9).repeat(7)
    rows = rows.assign(age_years=pd.array(np.where(person < 3, 59, np.where(person < 6, 60, 30)), "Int16"))
    rows["label"] = np.where(person < 3, 1, np.where(person < 6, 2, 0))
    probabilities = perfect(rows)
    probabilities[0] = np.eye(18)[2]
    table = border_table(rows, probabilities, HOME, NUMERIC)
    assert table["age_years"].tolist() == [59, 60]
    assert table["images"].tolist() == [21, 21]
    assert table["persons"].tolist() == [3, 3]
    assert table["given_older"].tolist() == [0, 1]
    np.testing.assert_allclose(table["predicted_older"], [1 / 21, 1])
    np.testing.assert_allclose(table["probability_older"], [1 / 21, 1])
    near = NUMERIC.model_copy(update={"detail": NUMERIC.detail[:1]})
    lower = border_table(rows, probabilities, HOME, near, level=1)
    assert lower[["age_years", "given_older"]].to_numpy().tolist() == [[30, 0]]
    assert border_table(rows.drop(columns="age_years"), probabilities, HOME, NUMERIC).empty
    assert border_table(rows, probabilities, HOME, None).empty


def test_no_factors_and_no_manifest():
    rows, _, _ = simulated(persons=6)
    rows = rows.assign(label=np.arange(42) % 2)
    scores = slice_scores(rows, perfect(rows, LabelSpace(("a", "b"))), LabelSpace(("a", "b")))
    assert set(scores["slice"]) == {"class", "fold"}
    assert (scores[["accuracy", "macro_f1"]] == 1).all(axis=None)
    assert (scores["log_loss"] == 0).all()


def test_wilson_by_hand():
    low, high = wilson(np.array([0.5, 0.0]), np.array([100, 1]), z=2.0)
    np.testing.assert_allclose(low, [(0.5 + 0.02 - 2 * np.sqrt(0.0025 + 1 / 10000)) / 1.04, 0], atol=1e-12)
    np.testing.assert_allclose(high, [(0.5 + 0.02 + 2 * np.sqrt(0.0025 + 1 / 10000)) / 1.04, 0.8])
