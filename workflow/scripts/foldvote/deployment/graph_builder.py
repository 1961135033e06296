"""A computation graph in the ONNX format, built operation by operation; finished networks are included as they are."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from foldvote.deployment.onnx_packages import onnx

OPSET = 20
IR_VERSION = 10  # that of opset 20: newer ones are refused by older runtimes
BATCH = "batch"  # the name of the dimension of any size
_LAST = np.iinfo(np.int64).min  # the end of a slice that runs backwards to the first element


class Graph:
    """A graph in the making. Values are known by their names; every operation returns the name of its one output."""

    def __init__(self) -> None:
        self._nodes: list[Any] = []
        self._weights: list[Any] = []
        self._constants: dict[tuple[str, tuple[int, ...], bytes], str] = {}
        self._values: dict[tuple[str, tuple[str, ...], str], str] = {}
        self._inputs: list[Any] = []
        self._outputs: list[Any] = []

    def input(self, name: str, dtype: npt.DTypeLike, shape: Sequence[int | str]) -> str:
        """An input of the graph; dimensions of any size are names."""
        self._inputs.append(onnx.helper.make_tensor_value_info(name, _code(dtype), list(shape)))
        return name

    def output(self, name: str, value: str, dtype: npt.DTypeLike, shape: Sequence[int | str]) -> None:
        """Name a value and make it an output of the graph."""
        self._nodes.append(onnx.helper.make_node("Identity", [value], [name]))
        self._outputs.append(onnx.helper.make_tensor_value_info(name, _code(dtype), list(shape)))

    def constant(self, values: npt.ArrayLike, dtype: npt.DTypeLike = np.float64) -> str:
        """A constant tensor; equal ones are stored once."""
        array = np.ascontiguousarray(np.asarray(values, dtype)).reshape(np.shape(values))
        key = (array.dtype.str, array.shape, array.tobytes())
        if key not in self._constants:
            self._constants[key] = f"constant_{len(self._constants)}"
            self._weights.append(onnx.numpy_helper.from_array(array, self._constants[key]))
        return self._constants[key]

    def op(self, kind: str, *inputs: str, **attributes: Any) -> str:
        """One operation of the ONNX standard, such as `graph.op("Softmax", logits, axis=-1)`; equal ones are one."""
        key = (kind, inputs, repr(sorted(attributes.items())))
        if key not in self._values:
            self._values[key] = f"value_{len(self._values)}"
            self._nodes.append(onnx.helper.make_node(kind, list(inputs), [self._values[key]], **attributes))
        return self._values[key]

    def cast(self, value: str, dtype: npt.DTypeLike) -> str:
        """A value as another type."""
        return self.op("Cast", value, to=_code(dtype))

    def total(self, value: str, axis: int) -> str:
        """The sum over an axis, which stays with the length 1."""
        return self.op("ReduceSum", value, self.constant([axis], np.int64), keepdims=1)

    def take(self, value: str, index: npt.ArrayLike, axis: int) -> str:
        """Entries along an axis; a single number drops the axis."""
        return self.op("Gather", value, self.constant(index, np.int64), axis=axis)

    def flipped(self, value: str, axis: int) -> str:
        """A value backwards along an axis."""
        bounds = [self.constant([number], np.int64) for number in (-1, _LAST, axis, -1)]
        return self.op("Slice", value, *bounds)

    def include(self, model: Any, prefix: str, feeds: Mapping[str, str]) -> str:
        """Add a finished model with one output.

        Args:
            model: its ONNX form, which is changed and must not be used any more.
            prefix: what its names get in front, so that they are unique.
            feeds: by the name of each of its inputs the value that it gets.

        Returns:
            The name of its output.
        """
        model = onnx.compose.add_prefix(model, prefix, inplace=True)
        for name, value in feeds.items():
            self._nodes.append(onnx.helper.make_node("Identity", [value], [prefix + name]))
        for node in model.graph.node:  # how it was exported: paths of this machine, and numbers that change each time
            del node.metadata_props[:]
            node.ClearField("doc_string")
        self._nodes.extend(model.graph.node)
        self._weights.extend(model.graph.initializer)
        output: str = model.graph.output[0].name
        return output

    def model(self) -> Any:
        """The finished graph as an onnx.ModelProto."""
        graph = onnx.helper.make_graph(self._nodes, "foldvote", self._inputs, self._outputs, self._weights)
        opsets = [onnx.helper.make_opsetid("", OPSET)]
        return onnx.helper.make_model(graph, opset_imports=opsets, ir_version=IR_VERSION, producer_name="foldvote")


def _code(dtype: npt.DTypeLike) -> int:
    code: int = onnx.helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    return code
