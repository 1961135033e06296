"""A finished run as ONNX files: uint8 images in, the vote's calibrated probabilities and classes out."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from foldvote.config.ensemble import split_end
from foldvote.config.image_size import Framing, parse_size
from foldvote.config.tta import checked_views, turn_fault, view_name
from foldvote.data.label_space import known_classes
from foldvote.deployment.finished_run import FinishedRun
from foldvote.deployment.graph_builder import BATCH, Graph
from foldvote.deployment.network_graph import (
    IMAGES,
    add_normalised,
    add_views,
    check_answers,
    export_network,
    with_weights,
)
from foldvote.deployment.network_precision import Precision, in_precision, simplified
from foldvote.deployment.onnx_packages import onnx, packages_fault
from foldvote.deployment.vote_graph import VOTES, add_vote
from foldvote.errors import UserError, raise_all
from foldvote.inference.tta import plain_view
from foldvote.models.factory import normalisation
from foldvote.runtime.device import Device

Images = Mapping[Framing, npt.NDArray[np.uint8]]
PROBABILITIES, CODES, MEANS = "probabilities", "codes", "means"
VOTE_FILE = "vote.onnx"
_CPU = Device(torch.device("cpu"), torch.float32, torch.contiguous_format)
_LARGEST = 2_000_000_000  # bytes in one file of this format, which cannot be longer than 2 GiB


@dataclass(frozen=True)
class GraphFile:
    """One ONNX file of an exported run.

    Attributes:
        path: the file.
        models: the models in it; empty for the vote of several files.
        framing: how the images that it takes are made; None for the vote.
        inputs: `images`, uint8 (batch, height, width, 3) RGB. For the vote, by name of each of the other files (without
            `.onnx`) its `means`.
        outputs: `probabilities`, float32 (batch, classes), and `codes`, int64 (batch,). Where there are several files,
            each has `means` instead, float32 (models * views, batch, classes), and the vote has these two.
        data: the file beside it that holds its weights, where these are too large for one file; else None.
    """

    path: Path
    models: tuple[str, ...]
    framing: Framing | None
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    data: Path | None = None


def export_refusals(run: FinishedRun) -> list[str]:
    """What cannot be written as ONNX, one line for each part. Whether a network can be shows when it is written."""
    faults = [fault] if (fault := packages_fault()) else []
    faults += [
        f"{run.results}: the model {model} of its vote sees metadata, which a bundle has no place for; drop its "
        "metadata and run your command again"
        for model in dict.fromkeys(model for model, _ in run.encodings)
    ]
    kind = split_end(run.params["kind"])[0]
    if kind not in VOTES:
        faults.append(
            f"vote: {kind} has no ONNX form; set vote.use to another of {', '.join(VOTES)}, or leave {kind} out of "
            "vote.kinds"
        )
    return faults + [
        f"predict.views: {view['name']}: its steps change pixels by albumentations, which has no ONNX form; drop the "
        "view, or choose others with `views`"
        for view in checked_views(list(run.views))
        if not isinstance(view, str)
    ]


def restricted(run: FinishedRun, folds: Sequence[int] | None, views: Sequence[str] | None) -> FinishedRun:
    """A run of only some folds and views.

    Weights of the vote are scaled so that those of the kept views have the sum 1. The calibration and offsets stay as
    they were fitted, and there are no prediction sets, whose coverage holds for the whole vote alone.

    Args:
        run: the finished run.
        folds: the folds to keep; None: all.
        views: names of the views to keep; None: all.

    Raises:
        UserError: if a fold or view is not there, a model would have no member, or the vote cannot do without a view.
    """
    known = {view_name(view): view for view in checked_views(list(run.views))}
    all_folds = sorted({fold for own in run.folds.values() for fold in own})
    kept_folds, kept_views = set(all_folds if folds is None else folds), set(known if views is None else views)
    kept = {model: [fold for fold in own if fold in kept_folds] for model, own in run.folds.items()}
    faults = [f"folds: no fold {fold}; the run has {all_folds}" for fold in sorted(kept_folds - set(all_folds))]
    faults += [f"views: no view {name}; the run has {', '.join(known)}" for name in sorted(kept_views - set(known))]
    faults += [
        f"folds: model {model} has none of these folds; it has {run.folds[model]}" for model in kept if not kept[model]
    ]
    if not kept_views:
        faults.append("views: none is named; name at least one, or drop the key")
    raise_all(faults)
    if kept == run.folds and kept_views == set(known):
        return run
    return replace(
        run,
        folds=kept,
        weights_sha256={(model, fold): sha for (model, fold), sha in run.weights_sha256.items() if fold in kept[model]},
        views=[view for name, view in known.items() if name in kept_views],
        params=run.params if kept_views == set(known) else _with_views(run.params, kept_views),
        least=None,
    )


def _with_views(params: Mapping[str, Any], views: set[str]) -> dict[str, Any]:
    """Fitted parameters for the candidates of some views."""
    kind = split_end(params["kind"])[0]
    if kind in ("stacking", "lightgbm", "rank"):
        raise UserError(
            f"views: the vote {kind} was fitted on all views and cannot do without one; keep all, or choose another "
            "vote.use"
        )
    candidates = [name for name in params["candidates"] if name.rpartition("/")[2] in views]

    def shared(weights: Mapping[str, float]) -> dict[str, float]:
        own = {name: weight for name, weight in weights.items() if name in candidates}
        total = sum(own.values())
        if not total > 0:
            raise UserError(f"views: the vote {kind} gives no weight to {', '.join(sorted(views))}; keep other views")
        return {name: weight / total for name, weight in own.items()}

    found = dict(params) | {"candidates": candidates}
    if "weights" in params:
        found["weights"] = shared(params["weights"])
    if "factors" in params:
        found["factors"] = {factor: shared(weights) for factor, weights in params["factors"].items()}
    if "temperatures" in params:
        found["temperatures"] = {name: params["temperatures"][name] for name in candidates}
    return found


def write_graphs(
    run: FinishedRun, folder: Path, precision: Precision = "fp32", calibration_images: Images | None = None
) -> list[GraphFile]:
    """Write a run as ONNX files: one for each framing of its images, and the vote where there are several.

    Members are loaded one after the other; the files hold their weights.

    Args:
        run: the finished run.
        folder: where the files are written; it exists.
        precision: of the networks; the vote is in float64.
        calibration_images: for int8, some images by their framing, uint8 (images, height, width, 3).

    Raises:
        UserError: with one line for each part that cannot be exported.
    """
    raise_all(export_refusals(run))
    single, views = len(run.inputs) == 1, sorted(view_name(view) for view in checked_views(list(run.views)))
    files: list[GraphFile] = []
    for framing, models in run.inputs.items():
        graph = Graph()
        height, width = framing.shape
        images = graph.input(IMAGES, np.uint8, [BATCH, height, width, 3])
        sample = None if calibration_images is None else calibration_images[framing]
        means = {model: _add_model(graph, run, model, images, views, precision, sample) for model in models}
        if single:
            outputs: tuple[str, ...] = _add_outputs(graph, run, _by_view(graph, means, views))
        else:
            stacked = graph.op("Concat", *means.values(), axis=0) if len(means) > 1 else next(iter(means.values()))
            shape: list[int | str] = [len(models) * len(views), BATCH, len(run.label_space.classes)]
            graph.output(MEANS, stacked, np.float32, shape)
            outputs = (MEANS,)
        path = folder / f"{'-'.join(framing.record.values())}.onnx"
        data = _write(graph, path)
        files.append(GraphFile(path, tuple(models), framing, (IMAGES,), outputs, data))
    return files if single else [*files, _write_vote(run, files, views, folder / VOTE_FILE)]


def _add_model(
    graph: Graph,
    run: FinishedRun,
    model: str,
    images: str,
    views: Sequence[str],
    precision: Precision,
    sample: npt.NDArray[np.uint8] | None,
) -> str:
    """The mean over a model's folds under every view: float32 (views, batch, classes)."""
    recipe = run.recipes[model]
    height, width = parse_size(recipe.size)
    raise_all(f"predict.views: {view}: {fault}" for view in views if (fault := turn_fault(view, height, width)))
    own, code_of = known_classes(recipe, run.label_space)
    plain = plain_view(recipe)
    parts, layers = [], None
    for fold in run.folds[model]:
        network = run.load((model, fold))
        mean, std = normalisation(network, _CPU.torch_device)
        seen = add_views(
            graph, add_normalised(graph, images, mean.numpy(), std.numpy()), views, recipe.packed.shape, (height, width)
        )
        name = f"model {model}, fold {fold}"
        layers = layers or export_network(name, network, height, width)
        exported = with_weights(layers, network)
        check_answers(name, network, exported, height, width)
        floats = None if sample is None else plain.move(_CPU.normalise(torch.from_numpy(sample), mean, std)).numpy()
        ready = in_precision(simplified(exported), precision, floats)
        logits = graph.include(ready, f"{model}/{fold}/", {IMAGES: seen})
        by_view = graph.op("Reshape", logits, graph.constant([len(views), -1, len(own.classes)], np.int64))
        of_task = graph.take(by_view, code_of, axis=2) if recipe.factors else by_view
        soft = graph.op("Softmax", graph.cast(of_task, np.float64), axis=-1)
        parts.append(graph.cast(soft, np.float32))
    total = graph.op("Sum", *parts) if len(parts) > 1 else parts[0]
    return graph.op("Div", total, graph.constant(len(parts), np.float32))


def _by_view(graph: Graph, means: Mapping[str, str], views: Sequence[str]) -> dict[tuple[str, str], str]:
    """By (model, view) the part of values (views, batch, classes), by model."""
    return {
        (model, view): graph.take(mean, at, axis=0) for model, mean in means.items() for at, view in enumerate(views)
    }


def _add_outputs(graph: Graph, run: FinishedRun, means: Mapping[tuple[str, str], str]) -> tuple[str, str]:
    learnt = {model: recipe.factors for model, recipe in run.recipes.items()}
    probabilities, codes = add_vote(graph, means, learnt, run.params, run.scaling, run.label_space)
    graph.output(
        PROBABILITIES, graph.cast(probabilities, np.float32), np.float32, [BATCH, len(run.label_space.classes)]
    )
    graph.output(CODES, codes, np.int64, [BATCH])
    return PROBABILITIES, CODES


def _write_vote(run: FinishedRun, files: Sequence[GraphFile], views: Sequence[str], path: Path) -> GraphFile:
    graph, means = Graph(), dict[tuple[str, str], str]()
    for file in files:
        shape: list[int | str] = [len(file.models) * len(views), BATCH, len(run.label_space.classes)]
        stacked = graph.input(file.path.stem, np.float32, shape)
        pairs = [(model, view) for model in file.models for view in views]
        means |= {pair: graph.take(stacked, at, axis=0) for at, pair in enumerate(pairs)}
    outputs = _add_outputs(graph, run, means)
    _write(graph, path)
    return GraphFile(path, (), None, tuple(file.path.stem for file in files), outputs)


def _write(graph: Graph, path: Path) -> Path | None:
    """Write a graph and check it; the file that holds its weights, if it needs one of its own."""
    model = graph.model()
    size = sum(tensor.ByteSize() for tensor in model.graph.initializer)
    data = path.with_suffix(".data") if size > _LARGEST else None
    if data is not None:
        data.unlink(missing_ok=True)  # else the weights are appended to it
        onnx.save(model, str(path), save_as_external_data=True, location=data.name, size_threshold=1024)
    else:
        onnx.save(model, str(path))
    onnx.checker.check_model(str(path), full_check=True)
    return data
