"""The packages that write and run ONNX files; they are an extra, and None here where they are not installed."""

import os
from typing import Any

os.environ["ORT_DISABLE_TELEMETRY"] = "1"  # otherwise onnxruntime tells its makers over the network that it is used


def _imported() -> tuple[Any, ...]:
    try:
        import onnx
        import onnxruntime
        import onnxscript.optimizer
        from onnxruntime import quantization
        from onnxruntime.transformers import float16, onnx_model
    except ImportError:
        return (None,) * 6
    return onnx, onnxruntime, onnxscript, quantization, float16, onnx_model


onnx, onnxruntime, onnxscript, quantization, float16, onnx_model = _imported()


def packages_fault() -> str | None:
    """What is missing to write ONNX files; None if nothing is."""
    fault = "bundle: needs onnx, onnxruntime and onnxscript; `make` installs them, elsewhere pip install -e '.[bundle]'"
    return None if onnx else fault
