"""Do the shots of a person agree: pooled votes, shares of agreement, and whose shots disagree."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from foldvote.data.label_space import LabelSpace, factor_label_space
from foldvote.evaluation.group_consistency import consistency, disagreeing_groups, group_fields, group_vote, marginals
from foldvote.evaluation.probabilities import softmax
from foldvote.runtime.seeding import generator
from support.simulated_persons import HOME, perfect, simulated

SEEDS = st.integers(0, 2**32)


def test_what_belongs_to_a_person_is_read_from_the_labels():
    rows, _, _ = simulated()
    assert group_fields(rows, HOME) == ["gender", "age"]
    odd = rows.assign(label=rows["label"].where(rows.index != 3, (rows["label"] + 3) % 18))
    assert group_fields(odd, HOME) == ["gender", "age"], "one wrong label of 60 persons must not change it"
    assert group_fields(rows.assign(profile=rows["image_id"]), HOME) == []
    plain = LabelSpace(("a", "b"))
    assert group_fields(rows.assign(label=np.repeat(np.arange(60) % 2, 7)), plain) == ["label"]
    assert group_fields(rows.assign(label=np.arange(420) % 2), plain) == []


def test_perfect_predictions_agree():
    rows, _, _ = simulated()
    found = consistency(rows, perfect(rows), HOME)
    assert found["persons"] == found["persons_of_several"] == 60
    assert found["fields"] == {
        name: {"unanimous": 1.0, "agreement": 1.0, "image_accuracy": 1.0, "vote_accuracy": 1.0}
        for name in ("gender", "age")
    }
    assert found["image"] == found["voted"] == {"accuracy": 1.0, "macro_f1": 1.0}
    assert disagreeing_groups(rows, perfect(rows), HOME).empty


def test_pooling_helps_where_shots_err_alone_and_shows_by_how_much():
    rows, probabilities, _ = simulated(sure=1.0)
    found = consistency(rows, probabilities, HOME)
    for shares in found["fields"].values():
        assert shares["vote_accuracy"] > shares["image_accuracy"]
        assert 0 < shares["unanimous"] < shares["agreement"] < 1
    assert found["voted"]["accuracy"] > found["image"]["accuracy"]


def test_shares_by_hand():
    label_space = factor_label_space({"side": ("left", "right")})
    rows = pd.DataFrame({"image_id": list("abcdef"), "profile": list("ppppqq"), "label": [0, 0, 0, 0, 1, 1]})
    right = np.array([0.1, 0.1, 0.1, 0.6, 0.7, 0.7])
    found = consistency(rows, np.stack([1 - right, right], axis=1), label_space)
    own = {"unanimous": 0.5, "agreement": (0.75 + 1) / 2, "image_accuracy": 5 / 6, "vote_accuracy": 1.0}
    assert found["fields"]["side"] == pytest.approx(own)
    table = disagreeing_groups(rows, np.stack([1 - right, right], axis=1), label_space)
    assert table[["profile", "given", "voted", "shots", "agreement"]].to_numpy().tolist() == [
        ["p", "left", "left", 4, 0.75]
    ]


@given(SEEDS)
@settings(max_examples=10, deadline=None)
def test_a_vote_over_shots(seed):
    rows, probabilities, _ = simulated(seed, persons=9)
    voted = group_vote(rows, probabilities, HOME)
    np.testing.assert_allclose(voted.sum(axis=1), 1, atol=1e-12)
    for field in ("gender", "age"):
        by_shot = marginals(voted, HOME, field).reshape(9, 7, -1)
        np.testing.assert_allclose(by_shot, by_shot[:, :1].repeat(7, axis=1), atol=1e-12)
    order = generator(seed, "order").permutation(len(rows))
    again = group_vote(rows.iloc[order], probabilities[order], HOME)
    np.testing.assert_allclose(again, voted[order], rtol=1e-12)
    single = rows.assign(profile=rows["image_id"])
    np.testing.assert_allclose(group_vote(single, probabilities, HOME, ["gender", "age"]), probabilities, rtol=1e-12)


def test_the_strongest_disagreement_comes_first():
    rows, probabilities, _ = simulated(sure=6.0)
    split = probabilities.copy()
    first, second = np.flatnonzero(rows["profile"] == "000007_person")[:2]
    split[[first, second]] = 1e-6
    split[first, 0] = split[second, 3] = 1
    split /= split.sum(axis=1, keepdims=True)
    table = disagreeing_groups(rows, split, HOME)
    assert table.iloc[0][["profile", "field"]].tolist() == ["000007_person", "gender"]
    assert table["strength"].is_monotonic_decreasing
    assert table["strength"].between(0, 1).all()
    order = generator(1, "order").permutation(len(rows))
    pd.testing.assert_frame_equal(disagreeing_groups(rows.iloc[order], split[order], HOME), table)


def test_no_factors_and_no_persons():
    draws = generator(2, "plain")
    rows = pd.DataFrame({"image_id": [f"{number}" for number in range(30)], "label": np.arange(30) % 3})
    rows["profile"] = rows["image_id"]
    probabilities = softmax(draws.normal(0, 1, (30, 3)))
    found = consistency(rows, probabilities, LabelSpace(("a", "b", "c")))
    assert found["fields"] == {}
    assert found["image"] == found["voted"]
    assert disagreeing_groups(rows, probabilities, LabelSpace(("a", "b", "c"))).empty
    with pytest.raises(ValueError, match="shape"):
        consistency(rows, probabilities[1:], LabelSpace(("a", "b", "c")))
