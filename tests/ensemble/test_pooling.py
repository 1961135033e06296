"""Pooling of a group's images: what each kind computes, and what must hold for all."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from foldvote.ensemble.pooling import POOLINGS, POWERS, fit_pooling, pool
from foldvote.evaluation.probabilities import softmax
from foldvote.runtime.seeding import generator

SEEDS = st.integers(0, 2**32)


def drawn(seed, groups=12, classes=4, most=6):
    """Probabilities of images in groups of 1 to `most`, and the first row of each group."""
    draws = generator(seed, "pooling")
    sizes = draws.integers(1, most + 1, groups)
    return softmax(draws.normal(0, 2, (sizes.sum(), classes))), np.cumsum(sizes) - sizes


def params(kind):
    return {"kind": kind, "power": 4}


@pytest.mark.parametrize("kind", POOLINGS)
@given(seed=SEEDS)
def test_rows_are_probabilities_and_the_order_of_a_groups_images_does_not_matter(kind, seed):
    rows, starts = drawn(seed)
    pooled = pool(rows, starts, params(kind))
    assert pooled.shape == (len(starts), 4)
    assert (pooled >= 0).all()
    np.testing.assert_allclose(pooled.sum(axis=1), 1)
    pieces = [piece[::-1] for piece in np.split(rows, starts[1:])]
    np.testing.assert_allclose(pool(np.concatenate(pieces), starts, params(kind)), pooled, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("kind", POOLINGS)
@given(seed=SEEDS)
def test_one_image_per_group_is_the_image_to_the_bit(kind, seed):
    rows, _ = drawn(seed)
    assert (pool(rows, np.arange(len(rows)), params(kind)) == rows).all()


@pytest.mark.parametrize("kind", [kind for kind in POOLINGS if kind not in ("noisy_or",)])
@given(seed=SEEDS)
def test_copies_of_one_image_change_nothing(kind, seed):
    """The noisy-or counts them as so many pieces of evidence that the class is there."""
    rows, _ = drawn(seed)
    np.testing.assert_allclose(pool(np.repeat(rows, 3, axis=0), 3 * np.arange(len(rows)), params(kind)), rows)


def test_each_kind_is_its_definition():
    rows, starts = np.array([[0.9, 0.1], [0.4, 0.6], [0.2, 0.8]]), np.array([0, 2])
    pair = rows[:2]
    expected = {
        "mean": pair.mean(axis=0),
        "geometric": np.sqrt(pair.prod(axis=0)),
        "maximum": pair.max(axis=0),
        "noisy_or": 1 - (1 - pair).prod(axis=0),
        "weighted": (0.9**4 * pair[0] + 0.6**4 * pair[1]),
    }
    for kind in POOLINGS:
        pooled = pool(rows, starts, params(kind))
        np.testing.assert_allclose(pooled[0], expected[kind] / expected[kind].sum(), err_msg=kind)
        np.testing.assert_allclose(pooled[1], rows[2], err_msg=kind)


def test_certain_wrong_images_do_not_make_a_pool_infinite_or_empty():
    rows = np.array([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]])
    for kind in POOLINGS:
        pooled = pool(rows, np.array([0]), params(kind))
        np.testing.assert_allclose(pooled[0], [0.5, 0.5, 0], atol=1e-7)


def test_the_power_of_the_weights_follows_what_certain_images_are_worth():
    """In each group one image sees the class and the others see nothing, or all see it equally well."""
    draws = generator(1, "power")
    labels = draws.integers(0, 3, 400)
    starts = 5 * np.arange(400)
    logits = draws.normal(0, 0.3, (2000, 3))
    logits[starts, labels] += 4
    telling = softmax(logits)
    assert fit_pooling("weighted", telling, starts, labels)["power"] > 1
    misleading = telling.copy()
    misleading[starts] = np.roll(misleading[starts], 1, axis=1)
    assert fit_pooling("weighted", misleading, starts, labels)["power"] == 0
    assert fit_pooling("mean", telling, starts, labels) == {"kind": "mean"}
    assert POWERS[0] == 0
