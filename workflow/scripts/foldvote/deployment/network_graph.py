"""Networks and the views that they see as ONNX: each network from images to logits."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from foldvote.config.tta import crop_of
from foldvote.deployment.graph_builder import BATCH, OPSET, Graph
from foldvote.deployment.onnx_packages import onnx, onnxruntime, onnxscript
from foldvote.deployment.quiet import quietly
from foldvote.errors import UserError
from foldvote.inference.tta import axis_weights, crop_box

Shape = tuple[int, int]
IMAGES, LOGITS = "images", "logits"
_TOLERANCE = 1e-3  # of logits, relative to the largest; rounding is far below, a wrong graph far above


def export_network(name: str, network: nn.Module, height: int, width: int) -> Any:
    """A network as ONNX: `images`, normalised float32 (batch, 3, height, width), to `logits`, float32 (batch, classes).

    Args:
        name: of the member, for errors.
        network: on the CPU; it is left in evaluation mode.
        height: height of the images in pixels.
        width: width of the images in pixels.

    Returns:
        An onnx.ModelProto whose batch may have any size. Its weights have the names that they have in the network.

    Raises:
        UserError: if the network has operations that cannot be exported.
    """
    network.eval()
    example = torch.zeros(2, 3, height, width)
    try:
        with quietly(), torch.no_grad():
            program = torch.onnx.export(
                network,
                (example,),
                dynamo=True,
                opset_version=OPSET,
                input_names=[IMAGES],
                output_names=[LOGITS],
                dynamic_shapes=({0: torch.export.Dim(BATCH)},),
                custom_translation_table=_stable_operations(),
                optimize=False,  # else weights are computed with, and no longer those of the network
                verbose=False,
            )
            return program.model_proto
    except Exception as error:
        cause: BaseException = error
        while cause.__cause__ is not None:
            cause = cause.__cause__
        reason = next((line for line in str(cause).splitlines() if line.strip()), type(cause).__name__)
        raise UserError(
            f"{name}: its network cannot be written as ONNX ({reason.strip()[:160]}); leave this model out of the vote"
        ) from error


def with_weights(model: Any, network: nn.Module) -> Any:
    """The export of one network as that of another one with the same layers: a copy with its weights."""
    found = onnx.ModelProto()
    found.CopyFrom(model)
    weights = network.state_dict()
    for tensor in found.graph.initializer:
        if tensor.name in weights:
            tensor.CopyFrom(onnx.numpy_helper.from_array(weights[tensor.name].numpy(), tensor.name))
    return found


def check_answers(name: str, network: nn.Module, model: Any, height: int, width: int) -> None:
    """Compare an export with its network on noise, in a batch of another size than the export has seen.

    Raises:
        UserError: if the logits differ by more than rounding.
    """
    noise = torch.randn(3, 3, height, width, generator=torch.Generator().manual_seed(0))
    network.eval()
    with torch.inference_mode():
        expected = network(noise).float().numpy()
    (found,) = session(model.SerializeToString()).run(None, {IMAGES: noise.numpy()})
    away = float(np.abs(found - expected).max())
    if not away <= _TOLERANCE * max(1.0, float(np.abs(expected).max())):
        raise UserError(
            f"{name}: its network answers otherwise as ONNX (logits differ by {away:.2g}); leave this model out of the "
            "vote"
        )


def _stable_operations() -> dict[Any, Any]:
    """Forms of two operations of heads that keep small values, of which the exporter's own forms make 0."""
    op = onnxscript.values.Opset("", OPSET)

    def log_sigmoid(values: Any) -> Any:
        return op.Neg(op.Softplus(op.Neg(values)))

    def expm1(values: Any) -> Any:
        half = op.Tanh(op.Mul(values, op.CastLike(op.Constant(value_float=0.5), values)))
        return op.Mul(half, op.Add(op.Exp(values), op.CastLike(op.Constant(value_float=1.0), values)))

    aten = torch.ops.aten
    return {
        aten.log_sigmoid.default: log_sigmoid,
        aten.log_sigmoid_forward.default: log_sigmoid,
        aten.expm1.default: expm1,
    }


def session(model: bytes | Path, threads: int = 1) -> Any:
    """An onnxruntime.InferenceSession on the CPU of a model, given as bytes or as a file."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    given = model if isinstance(model, bytes) else os.fspath(model)
    return onnxruntime.InferenceSession(given, options, providers=["CPUExecutionProvider"])


def add_normalised(graph: Graph, images: str, mean: npt.ArrayLike, std: npt.ArrayLike) -> str:
    """Normalise images as `Device.normalise` does: uint8 (batch, H, W, 3) to float32 (batch, 3, H, W).

    Mean and standard deviation are float32 (1, 3, 1, 1).
    """
    moved = graph.op("Transpose", graph.cast(images, np.float32), perm=[0, 3, 1, 2])
    share = graph.op("Div", moved, graph.constant(255, np.float32))
    return graph.op("Div", graph.op("Sub", share, graph.constant(mean, np.float32)), graph.constant(std, np.float32))


def add_views(graph: Graph, images: str, moves: Sequence[str], shape: Shape, seen: Shape) -> str:
    """All views of normalised images as one batch, view by view: float32 (views * batch, 3, *seen).

    Args:
        graph: the graph.
        images: float32 (batch, 3, *shape).
        moves: names of the views.
        shape: height and width of the images in pixels.
        seen: height and width of what the network takes.
    """
    found = [_moved(graph, images, move, shape, seen) for move in moves]
    return graph.op("Concat", *found, axis=0) if len(found) > 1 else found[0]


def _resized(graph: Graph, images: str, shape: Shape, seen: Shape) -> str:
    """Images resized as `foldvote.inference.tta.resized` does."""
    rows, columns = (axis_weights(old, new) for old, new in zip(shape, seen, strict=True))
    across = graph.op("MatMul", images, graph.constant(columns.T, np.float32))
    return graph.op("MatMul", graph.constant(rows, np.float32), across)


def _moved(graph: Graph, images: str, move: str, shape: Shape, seen: Shape) -> str:
    """One view, as `foldvote.inference.tta` makes it."""
    height, width = shape
    if (crop := crop_of(move)) is not None:
        top, left, rows, columns = crop_box(height, width, *crop)
        bounds = ([top, left], [top + rows, left + columns], [2, 3])
        part = graph.op("Slice", images, *(graph.constant(numbers, np.int64) for numbers in bounds))
        if seen != shape:
            return _resized(graph, part, (rows, columns), seen)
        size = graph.constant([height, width], np.int64)
        return graph.op(
            "Resize", part, "", "", size, axes=[2, 3], mode="linear", coordinate_transformation_mode="half_pixel"
        )
    flips = {"identity": (), "hflip": (3,), "vflip": (2,), "rot90": (3,), "rot180": (2, 3), "rot270": (2,)}[move]
    if seen != shape:
        images = _resized(graph, images, shape, seen)
    for axis in flips:
        images = graph.flipped(images, axis)
    return graph.op("Transpose", images, perm=[0, 1, 3, 2]) if move in ("rot90", "rot270") else images
