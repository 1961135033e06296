"""Softmax and weighted means: what must hold for any members."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from foldvote.evaluation.probabilities import largest, softmax, weighted_mean
from foldvote.runtime.seeding import generator

SEEDS = st.integers(0, 2**32)


def drawn(seed, members, images=7, classes=5):
    return softmax(generator(seed, "logits").normal(0, 4, (members, images, classes)))


@given(SEEDS, st.floats(-1e4, 1e4), st.sampled_from([1e-3, 1.0, 1e3]))
@settings(max_examples=50, deadline=None)
def test_softmax_is_stable_and_sums_to_one(seed, offset, scale):
    logits = generator(seed, "logits").normal(offset, scale, (6, 18)).astype(np.float32)
    found = softmax(logits)
    assert found.dtype == np.float64
    assert np.isfinite(found).all()
    np.testing.assert_allclose(found.sum(axis=1), 1, atol=1e-12)
    assert (found.argmax(axis=1) == logits.argmax(axis=1)).all()
    np.testing.assert_allclose(softmax(logits.astype(np.float64) + 3), found, rtol=1e-9, atol=1e-300)


def test_softmax_by_hand_and_at_the_extremes():
    np.testing.assert_allclose(softmax(np.log([[1.0, 2.0, 5.0]])), [[0.125, 0.25, 0.625]], rtol=1e-12)
    extreme = np.array([[3.4e38, -3.4e38, 0]], dtype=np.float32)
    assert softmax(extreme).tolist() == [[1.0, 0.0, 0.0]]


@given(SEEDS)
@settings(max_examples=20, deadline=None)
def test_f59_the_mean_of_one_member_is_that_member_exactly(seed):
    only = drawn(seed, 1)
    assert (weighted_mean(only) == only[0]).all()
    assert (weighted_mean(only, [1.0]) == only[0]).all()


@given(SEEDS, st.integers(2, 12))
@settings(max_examples=30, deadline=None)
def test_a_mean_does_not_depend_on_the_order_of_its_members(seed, members):
    draws = generator(seed, "order")
    stack, order = drawn(seed, members), draws.permutation(members)
    weights = draws.dirichlet(np.ones(members))
    assert (weighted_mean(stack) == weighted_mean(stack[order])).all()
    assert (weighted_mean(stack, weights) == weighted_mean(stack[order], weights[order])).all()


@given(SEEDS, st.integers(1, 12))
@settings(max_examples=30, deadline=None)
def test_rows_of_a_mean_sum_to_one_and_lie_between_the_members(seed, members):
    stack = drawn(seed, members)
    weights = generator(seed, "weights").dirichlet(np.ones(members))
    for found in (weighted_mean(stack), weighted_mean(stack, weights)):
        np.testing.assert_allclose(found.sum(axis=1), 1, atol=1e-12)
        assert (found >= stack.min(axis=0) - 1e-15).all()
        assert (found <= stack.max(axis=0) + 1e-15).all()
    np.testing.assert_allclose(weighted_mean(stack), stack.mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(weighted_mean(stack, weights), np.tensordot(weights, stack, 1), rtol=1e-12)


@pytest.mark.parametrize("weights", [[0.5, 0.6], [1.0], [1.5, -0.5], [math.nan, 1.0]])
def test_f59_weights_that_do_not_sum_to_one_are_refused(weights):
    with pytest.raises(ValueError, match="sum 1"):
        weighted_mean(drawn(0, 2), weights)


def test_a_mean_needs_a_member():
    with pytest.raises(ValueError, match="expected"):
        weighted_mean(np.empty((0, 3, 2)))


@given(SEEDS, st.integers(1, 12), st.booleans())
@settings(max_examples=40, deadline=None)
def test_few_members_are_sorted_as_many_are_to_the_bit(seed, members, weighted):
    drawn_members = drawn(seed, members).astype(np.float32)
    weights = generator(seed, "weights").dirichlet(np.ones(members)) if weighted else np.ones(members)
    terms = np.sort(drawn_members * weights[:, None, None], axis=0).sum(axis=0)
    found = weighted_mean(drawn_members, weights if weighted else None)
    np.testing.assert_array_equal(found, terms if weighted else terms / members)


@given(SEEDS, st.sampled_from([(0, 3), (1, 1), (9, 18), (2, 5, 7)]))
@settings(max_examples=20, deadline=None)
def test_the_largest_values_and_softmax_are_those_of_numpy_to_the_bit(seed, shape):
    logits = generator(seed, "logits").normal(0, 4, shape)
    np.testing.assert_array_equal(largest(logits), logits.max(axis=-1))
    np.testing.assert_array_equal(largest(logits[..., ::-1]), logits.max(axis=-1))
    powers = np.exp(logits - logits.max(axis=-1, keepdims=True))
    np.testing.assert_array_equal(softmax(logits), powers / powers.sum(axis=-1, keepdims=True))
