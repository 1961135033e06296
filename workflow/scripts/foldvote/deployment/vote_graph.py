"""The vote as ONNX operations: candidates, ensemble method, offsets and calibration, all in float64.

Each function does what its namesake in foldvote.ensemble does with arrays. Values are names in a `Graph`; those of
candidates and of probabilities have the shape (batch, classes).
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np

from foldvote.config.ensemble import split_end
from foldvote.data.label_space import LabelSpace
from foldvote.deployment.graph_builder import Graph
from foldvote.ensemble.averaging import FLOOR, KNOTS, TIE
from foldvote.ensemble.candidates import partial_models, product_name
from foldvote.ensemble.model_predictions import Learnt
from foldvote.ensemble.scaling import Scaling
from foldvote.ensemble.stacking import FLOOR as STACKING_FLOOR
from foldvote.ensemble.weighting import FITTING_SWEEPS
from foldvote.evaluation.metrics import SMALLEST

Values = Mapping[str, str]
"""By the name of each candidate (`model/view`), or of each model, a value of the graph."""


def add_vote(
    graph: Graph,
    means: Mapping[tuple[str, str], str],
    learnt: Learnt,
    params: Mapping[str, Any],
    scaling: Scaling,
    label_space: LabelSpace,
) -> tuple[str, str]:
    """Add the vote to a graph.

    Args:
        graph: the graph.
        means: by (model, view) the mean over the folds, float32 (batch, classes).
        learnt: the factors of each model; None where it learns all.
        params: what the ensemble method has fitted.
        scaling: the calibration of the vote.
        label_space: the classes.

    Returns:
        Calibrated probabilities, float64 (batch, classes), and the predicted codes, int64 (batch,).
    """
    candidates = _candidates(graph, means, learnt, label_space)
    chosen = {name: graph.cast(candidates[name], np.float64) for name in params["candidates"]}
    probabilities = VOTES[split_end(params["kind"])[0]](graph, chosen, params, label_space)
    scores = probabilities
    if params.get("offsets") is not None:
        scores = graph.op("Add", _logs(graph, probabilities), graph.constant(params["offsets"]))
    return _scaled(graph, probabilities, scaling), graph.op("ArgMax", scores, axis=1, keepdims=0)


def _candidates(
    graph: Graph, means: Mapping[tuple[str, str], str], learnt: Learnt, label_space: LabelSpace
) -> dict[str, str]:
    """Every model of whole classes and the factor product, in every view: float32."""
    partial = partial_models(learnt)
    found = {f"{model}/{view}": value for (model, view), value in means.items() if model not in partial}
    sets: dict[frozenset[str], list[str]] = {}
    for model in partial:
        sets.setdefault(frozenset(learnt[model] or ()), []).append(model)
    for view in sorted({view for _, view in means}) if partial else ():
        marginals = []
        for factors, models in sets.items():
            own_space, code_of = label_space.restricted(sorted(factors))
            levels = graph.constant(np.eye(len(own_space.classes))[code_of])
            own = [graph.op("MatMul", graph.cast(means[model, view], np.float64), levels) for model in models]
            marginals.append(graph.take(_mean(graph, own), code_of, axis=1))
        product = marginals[0]
        for marginal in marginals[1:]:
            product = graph.op("Mul", product, marginal)
        found[f"{product_name(learnt)}/{view}"] = graph.cast(_normalised(graph, product), np.float32)
    return found


def _by_weights(graph: Graph, candidates: Values, params: Mapping[str, Any], _label_space: LabelSpace) -> str:
    return _mixture(graph, candidates, params["weights"])


def _geometric(graph: Graph, candidates: Values, params: Mapping[str, Any], _label_space: LabelSpace) -> str:
    logs = {name: _logs(graph, value, FLOOR) for name, value in candidates.items()}
    return graph.op("Softmax", _mixture(graph, logs, params["weights"]), axis=-1)


def _majority(graph: Graph, candidates: Values, _params: Mapping[str, Any], label_space: LabelSpace) -> str:
    means = list(_model_means(graph, candidates).values())
    codes = graph.constant(np.arange(len(label_space.classes)), np.int64)
    chosen = [graph.op("Equal", graph.op("ArgMax", mean, axis=1, keepdims=1), codes) for mean in means]
    shares = _mean(graph, [graph.cast(value, np.float64) for value in chosen])
    return _normalised(graph, graph.op("Add", shares, _scaled_by(graph, _mean(graph, means), TIE)))


def _ranks(graph: Graph, candidates: Values, params: Mapping[str, Any], _label_space: LabelSpace) -> str:
    """Between its knots, a piecewise linear function is a sum of clipped differences times slopes."""
    ranks = {}
    for name, value in candidates.items():
        starts, widths, slopes = (np.zeros((len(params["knots"][name]), KNOTS - 1)) for _ in range(3))
        lowest = np.zeros(len(starts))
        for code, knots in enumerate(params["knots"][name]):
            unique, first, times = np.unique(knots, return_index=True, return_counts=True)
            places, parts = first + (times - 1) / 2, slice(0, len(unique) - 1)
            starts[code, parts], widths[code, parts] = unique[:-1], np.diff(unique)
            slopes[code, parts] = np.diff(places) / np.diff(unique)
            lowest[code] = places[0]
        beyond = graph.op("Sub", graph.op("Unsqueeze", value, graph.constant([2], np.int64)), graph.constant(starts))
        within = graph.op("Min", graph.op("Max", beyond, graph.constant(0.0)), graph.constant(widths))
        steps = graph.op("Mul", within, graph.constant(slopes))
        risen = graph.op("ReduceSum", steps, graph.constant([2], np.int64), keepdims=0)
        ranks[name] = _scaled_by(graph, graph.op("Add", risen, graph.constant(lowest + 0.5)), 1 / KNOTS)
    return _normalised(graph, _mixture(graph, ranks, _equal_shares(candidates)))


def _tempered(graph: Graph, candidates: Values, params: Mapping[str, Any], _label_space: LabelSpace) -> str:
    calibrated = {
        name: _at_temperature(graph, value, params["temperatures"][name]) for name, value in candidates.items()
    }
    return _mixture(graph, calibrated, _equal_shares(candidates))


def _factor_weights(graph: Graph, candidates: Values, params: Mapping[str, Any], label_space: LabelSpace) -> str:
    joint = graph.op("Max", _mixture(graph, candidates, _equal_shares(candidates)), graph.constant(SMALLEST))
    targets = []
    for factor, levels in label_space.factors.items():
        indicator = np.eye(len(levels))[label_space.level_codes(factor)]
        to_levels, to_classes = graph.constant(indicator), graph.constant(indicator.T)
        marginal = graph.op("MatMul", _mixture(graph, candidates, params["factors"][factor]), to_levels)
        targets.append((to_levels, to_classes, graph.op("Max", marginal, graph.constant(SMALLEST))))
    for _ in range(FITTING_SWEEPS):
        for to_levels, to_classes, marginal in targets:
            present = graph.op("Max", graph.op("MatMul", joint, to_levels), graph.constant(SMALLEST**2))
            joint = graph.op("Mul", joint, graph.op("MatMul", graph.op("Div", marginal, present), to_classes))
    return _normalised(graph, joint)


def _class_weights(graph: Graph, candidates: Values, params: Mapping[str, Any], _label_space: LabelSpace) -> str:
    weighted = [
        graph.op("Mul", mean, graph.constant(params["class_weights"][model]))
        for model, mean in _model_means(graph, candidates).items()
    ]
    return _normalised(graph, graph.op("Max", _sum(graph, weighted), graph.constant(SMALLEST)))


def _stacking(graph: Graph, candidates: Values, params: Mapping[str, Any], label_space: LabelSpace) -> str:
    fitted, classes = params["stacking"], len(label_space.classes)
    features = graph.op(
        "Concat", *(_logs(graph, mean, STACKING_FLOOR) for mean in _model_means(graph, candidates).values()), axis=1
    )
    features = graph.op("Sub", features, graph.constant(fitted["mean"]))
    features = graph.op("Div", features, graph.constant(fitted["scale"]))
    scores = graph.op("MatMul", features, graph.constant(np.asarray(fitted["coefficients"]).T))
    scores = graph.op("Add", scores, graph.constant(fitted["intercepts"]))
    predicted = graph.op("Softmax", scores, axis=-1)
    mean = _mixture(graph, candidates, _equal_shares(candidates))
    seen = np.eye(classes)[fitted["seen"]]  # (seen, classes)
    of_seen = graph.total(graph.take(mean, fitted["seen"], axis=1), axis=1)
    placed = graph.op("MatMul", graph.op("Mul", predicted, of_seen), graph.constant(seen))
    others = graph.op("Mul", mean, graph.constant(1 - seen.sum(axis=0)))
    return _normalised(graph, graph.op("Add", placed, others))


Vote = Callable[[Graph, Values, Mapping[str, Any], LabelSpace], str]
VOTES: dict[str, Vote] = {
    "mean": _by_weights,
    "geometric": _geometric,
    "best_model": _by_weights,
    "majority": _majority,
    "rank": _ranks,
    "tempered": _tempered,
    "greedy": _by_weights,
    "weights": _by_weights,
    "factor_weights": _factor_weights,
    "class_weights": _class_weights,
    "stacking": _stacking,
}
"""The methods that can be written as ONNX: all but trees."""


def _scaled(graph: Graph, probabilities: str, scaling: Scaling) -> str:
    if scaling["method"] == "temperature":
        return _at_temperature(graph, probabilities, scaling["temperature"])
    if scaling["method"] == "vector":
        fitted = scaling["scaling"]
        logs = graph.op("Mul", _logs(graph, probabilities), graph.constant(fitted["weights"]))
        return graph.op("Softmax", graph.op("Add", logs, graph.constant(fitted["biases"])), axis=-1)
    return probabilities


def _at_temperature(graph: Graph, probabilities: str, temperature: float) -> str:
    cooled = graph.op("Div", _logs(graph, probabilities), graph.constant(temperature))
    return graph.op("Softmax", cooled, axis=-1)


def _logs(graph: Graph, probabilities: str, floor: float = SMALLEST) -> str:
    return graph.op("Log", graph.op("Max", probabilities, graph.constant(floor)))


def _equal_shares(candidates: Iterable[str]) -> dict[str, float]:
    """The same weight for every model, and for every view within a model."""
    models = [_model_of(name) for name in candidates]
    return {name: 1 / (len(set(models)) * models.count(_model_of(name))) for name in candidates}


def _model_means(graph: Graph, candidates: Values) -> dict[str, str]:
    """The mean of each model over its views, models sorted."""
    return {
        model: _mean(graph, [value for name, value in candidates.items() if _model_of(name) == model])
        for model in sorted({_model_of(name) for name in candidates})
    }


def _model_of(candidate: str) -> str:
    return candidate.rpartition("/")[0]


def _mixture(graph: Graph, values: Values, weights: Mapping[str, float]) -> str:
    """The sum of values by weights; those without weight are left out."""
    return _sum(graph, [_scaled_by(graph, values[name], weight) for name, weight in weights.items() if weight > 0])


def _mean(graph: Graph, values: list[str]) -> str:
    return graph.op("Div", _sum(graph, values), graph.constant(float(len(values)))) if len(values) > 1 else values[0]


def _sum(graph: Graph, values: list[str]) -> str:
    return graph.op("Sum", *values) if len(values) > 1 else values[0]


def _scaled_by(graph: Graph, value: str, factor: float) -> str:
    return graph.op("Mul", value, graph.constant(factor)) if factor != 1 else value


def _normalised(graph: Graph, values: str) -> str:
    return graph.op("Div", values, graph.total(values, axis=1))
