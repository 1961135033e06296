"""An exported network made ready to run: simplified, and in half precision or 8-bit integers where asked for."""

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from foldvote.deployment.onnx_packages import float16, onnx, onnx_model, onnxscript, quantization
from foldvote.deployment.quiet import quietly
from foldvote.errors import UserError

Precision = Literal["fp32", "fp16", "int8"]
_IN_INT8 = ("Conv", "Gemm", "MatMul")  # where the time goes; others in int8 cost more in conversions than they save


def simplified(model: Any) -> Any:
    """A network with constants computed and batch normalisation merged into convolutions: the same answers, faster."""
    with quietly():
        return onnxscript.optimizer.optimize(model)


def in_precision(model: Any, precision: Precision, sample: npt.NDArray[np.float32] | None) -> Any:
    """A simplified network in another precision; its inputs and outputs stay float32.

    Args:
        model: as `simplified` returns it; it may be changed.
        precision: `fp16` halves the file, weights and activations alike. `int8` makes convolutions and matrix products
            integer ones, each channel of the weights and each tensor of activations with a scale of its own; the last
            product, which gives the logits, stays float32. The ranges of activations are those of the sample, so that
            an image's answer does not depend on the others of its batch.
        sample: for int8, normalised images (images, 3, height, width).

    Raises:
        UserError: if int8 has no sample.
    """
    if precision == "fp32":
        return model
    if precision == "fp16":
        with quietly():
            halved = float16.convert_float_to_float16(model, keep_io_types=True)
        onnx_model.OnnxModel.graph_topological_sort(halved.graph, is_deterministic=True)  # its casts stand at the end
        return halved
    if sample is None or not len(sample):
        raise UserError("precision: int8 needs images by which the range of every layer is measured; give some")
    last = [node.name for node in model.graph.node if node.op_type in ("Gemm", "MatMul")][-1:]
    with quietly(), tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "network.onnx"
        quantization.quantize_static(
            model,
            path,
            _OneByOne(model.graph.input[0].name, sample),
            quant_format=quantization.QuantFormat.QDQ,
            op_types_to_quantize=list(_IN_INT8),
            per_channel=True,
            activation_type=quantization.QuantType.QUInt8,
            weight_type=quantization.QuantType.QInt8,
            nodes_to_exclude=last,
        )
        return onnx.load(path)


class _OneByOne:
    """Gives the images one at a time, as the calibration wants them."""

    def __init__(self, name: str, images: npt.NDArray[np.float32]) -> None:
        self._feeds: Iterator[dict[str, Any]] = ({name: image[None]} for image in images)

    def get_next(self) -> dict[str, Any] | None:
        return next(self._feeds, None)
