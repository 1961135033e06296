"""The vote as ONNX gives what the vote of arrays gives, for every method, offsets and calibration."""

from functools import cache
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from foldvote.config.ensemble import METHOD_NAMES, OF_METADATA
from foldvote.data.label_space import factor_label_space
from foldvote.deployment.graph_builder import BATCH, Graph
from foldvote.deployment.network_graph import session
from foldvote.deployment.vote_graph import VOTES, add_vote
from foldvote.ensemble.candidates import candidates_of
from foldvote.ensemble.methods import apply_method, choose_classes, fit_method
from foldvote.ensemble.model_predictions import Learnt, ModelPredictions
from foldvote.ensemble.scaling import Scaling, apply_scaling, fit_scaling
from foldvote.evaluation.probabilities import softmax
from foldvote.runtime.seeding import generator

LABEL_SPACE = factor_label_space({"mask": ("wear", "not"), "gender": ("f", "m"), "age": ("young", "old", "oldest")})
VIEWS = ("crop-centre-90", "hflip", "identity")
WHOLE: Learnt = {"large": None, "small": None}
FACTORS: Learnt = {"ages": ["age"], "large": None, "others": ["mask", "gender"], "others-2": ["gender", "mask"]}
CLASSES = len(LABEL_SPACE.classes)


def _predictions(learnt: Learnt, seed: int, images: int = 240) -> tuple[ModelPredictions, np.ndarray]:
    """Members' means of labelled images, sharp and flat, some certain, some undecided; and the labels."""
    labels = generator(seed, "labels").integers(0, CLASSES, images)
    pairs = tuple(sorted(((model, view) for model in learnt for view in VIEWS), key="/".join))
    sharpness = generator(seed, "sharpness").choice([0.3, 2.0, 30.0], images)[:, None]
    rows = []
    for model, view in pairs:
        noise = generator(seed, model).normal(0, 1, (images, CLASSES)) + generator(seed, model, view).normal(
            0, 0.3, CLASSES
        )
        scores = sharpness * (noise + 1.5 * np.eye(CLASSES)[labels])
        code_of = LABEL_SPACE.restricted(learnt[model])[1] if learnt[model] else np.arange(CLASSES)
        rows.append(softmax(scores[:, code_of]))
    means = np.stack(rows).astype(np.float32)
    means[:, 0] = np.float32(1 / CLASSES)
    means[:, 1] = np.eye(CLASSES, dtype=np.float32)[3] if learnt is WHOLE else means[:, 2]
    return ModelPredictions(pa.array([""] * images, pa.string()), pairs, means, learnt), labels


@cache
def _data(factors: bool) -> tuple[ModelPredictions, np.ndarray]:
    return _predictions(FACTORS if factors else WHOLE, 5)


def _from_graph(
    predictions: ModelPredictions, params: dict[str, Any], scaling: Scaling
) -> tuple[np.ndarray, np.ndarray]:
    graph = Graph()
    stacked = graph.input("means", np.float32, [len(predictions.model_views), BATCH, CLASSES])
    means = {pair: graph.take(stacked, at, axis=0) for at, pair in enumerate(predictions.model_views)}
    probabilities, codes = add_vote(graph, means, predictions.learnt, params, scaling, LABEL_SPACE)
    graph.output("probabilities", probabilities, np.float64, [BATCH, CLASSES])
    graph.output("codes", codes, np.int64, [BATCH])
    found = session(graph.model().SerializeToString()).run(None, {"means": predictions.means})
    return found[0], found[1]


def _assert_equal(predictions: ModelPredictions, params: dict[str, Any], scaling: Scaling) -> None:
    probabilities = apply_method(candidates_of(predictions, LABEL_SPACE), params, LABEL_SPACE)
    found, codes = _from_graph(predictions, params, scaling)
    np.testing.assert_allclose(found, apply_scaling(probabilities, scaling), rtol=0, atol=1e-9)
    decided = slice(1, None)  # the first image has equal probabilities
    assert codes[decided].tolist() == choose_classes(probabilities, params)[decided].tolist()
    assert len(set(codes.tolist())) > 5


@pytest.mark.parametrize("factors", [False, True])
@pytest.mark.parametrize("kind", [f"{kind}{offsets}" for kind in VOTES for offsets in ("", "+expected", "+offsets")])
def test_every_method_gives_what_it_gives_with_arrays(kind: str, factors: bool) -> None:
    predictions, labels = _data(factors)
    candidates = candidates_of(predictions, LABEL_SPACE)
    params = fit_method(kind, candidates, labels, LABEL_SPACE, 7, folds=np.arange(len(labels)) % 3)
    _assert_equal(predictions, params, {"method": "none"})


@pytest.mark.parametrize("method", ["temperature", "vector"])
def test_both_calibrations_give_what_they_give_with_arrays(method: Any) -> None:
    predictions, labels = _data(False)
    candidates = candidates_of(predictions, LABEL_SPACE)
    params = fit_method("geometric+offsets", candidates, labels, LABEL_SPACE, 7)
    probabilities = apply_method(candidates, params, LABEL_SPACE)
    scaling = fit_scaling(probabilities, labels, method, "")
    assert not np.allclose(apply_scaling(probabilities, scaling), probabilities, atol=1e-3)
    _assert_equal(predictions, params, scaling)


@pytest.mark.parametrize("kind", ["rank", "stacking", "tempered"])
def test_images_other_than_those_of_the_fit(kind: str) -> None:
    """Ranks beyond the knots, features beyond those seen, and a class that no image of the fit has."""
    predictions, labels = _data(False)
    candidates, some = (
        candidates_of(predictions, LABEL_SPACE),
        np.flatnonzero((labels != 4) & (np.arange(240) % 2 == 0)),
    )
    params = fit_method(kind, candidates, labels, LABEL_SPACE, 7, rows=some)
    _assert_equal(_predictions(WHOLE, 6)[0], params, {"method": "none"})


def test_all_methods_but_trees_and_those_of_metadata_have_a_graph() -> None:
    assert set(METHOD_NAMES) - set(VOTES) == {"lightgbm", *OF_METADATA}


def test_equal_operations_and_constants_are_stored_once() -> None:
    graph = Graph()
    images = graph.input("images", np.float32, [BATCH])
    twice = [graph.op("Mul", images, graph.constant(2, np.float32)) for _ in range(2)]
    assert twice[0] == twice[1]
    assert graph.op("Mul", images, graph.constant(3, np.float32)) != twice[0]
    assert graph.op("Softmax", images, axis=0) != graph.op("Softmax", images, axis=-1)
    graph.output("both", graph.op("Add", *twice), np.float32, [BATCH])
    assert session(graph.model().SerializeToString()).run(None, {"images": np.float32([1, 2])})[0].tolist() == [4, 8]
