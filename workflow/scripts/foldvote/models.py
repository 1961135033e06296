"""Networks: any of timm's, from scratch or from a local file of weights. Nothing here asks a network for anything."""

import os
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"  # without it timm retries for the better part of a minute

import timm
import torch
from torch import nn

from foldvote.errors import Refusal
from foldvote.sections import Recipe, parse_size


def build_model(recipe: Recipe, classes: int, seed: int, weights: Path | None = None) -> nn.Module:
    """Make a network with freshly drawn or pretrained weights.

    Args:
        recipe: for net, size and drop_rate.
        classes: number of logits.
        seed: of the drawn weights.
        weights: local file (.safetensors, or .pth of plain tensors) that holds the net's pretrained weights; its
            classifier is not used. None: from scratch.

    Raises:
        Refusal: if the net cannot be made for the size, or the file is missing, is not a plain weights file, or does
            not fit the net.
    """
    if weights is not None and not weights.is_file():
        raise Refusal(f"{weights}: no such weights file; correct the recipe's `pretrained`, or set it to null")
    options: dict[str, object] = {"num_classes": classes, "drop_rate": recipe.drop_rate}
    try:
        model = _drawn_model(recipe, seed, options)
    except Exception as error:
        raise Refusal(
            f"{recipe.net}: cannot be made for images of {recipe.size} ({_reason(error)}); correct the recipe's net or "
            "size"
        ) from error
    if weights is None:
        return model
    drawn = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    try:
        # Read before timm reads it, and never as a pickle, whatever timm's own default is.
        given = set(timm.models.load_state_dict(str(weights), device="cpu", weights_only=True))
        overlay = {"file": str(weights)}
        torch.manual_seed(seed)
        model = timm.create_model(recipe.net, pretrained=True, pretrained_cfg_overlay=overlay, **options)
    except Exception as error:
        raise Refusal(
            f"{weights}: does not load into {recipe.net} ({_reason(error)}); give this net's own weights"
        ) from error
    _check_loaded(model, drawn, given, weights, recipe.net)
    return model


def normalisation(model: nn.Module, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean and standard deviation of the net's inputs, as float32 tensors of shape (1, 3, 1, 1)."""
    data = timm.data.resolve_model_data_config(model)
    mean, std = (torch.tensor(data[name], dtype=torch.float32, device=device) for name in ("mean", "std"))
    return mean.view(1, -1, 1, 1), std.view(1, -1, 1, 1)


def _drawn_model(recipe: Recipe, seed: int, options: dict[str, object]) -> nn.Module:
    """The net from scratch, tried on one black image: a size that does not suit it is told before any data is read."""
    default = timm.get_pretrained_cfg(recipe.net)
    if default is not None and default.fixed_input_size:
        options["img_size"] = parse_size(recipe.size)
    torch.manual_seed(seed)
    model = timm.create_model(recipe.net, pretrained=False, **options)
    with torch.no_grad():
        model.eval()(torch.zeros(1, 3, *parse_size(recipe.size)))
    return model.train()


def _check_loaded(model: nn.Module, drawn: dict[str, torch.Tensor], given: set[str], weights: Path, net: str) -> None:
    """timm loads what fits and says nothing of the rest: what is not in the file is still as it was drawn.

    Names alone would not do, as timm knows older ones: `given` holds those of the file.
    """
    classifier = model.pretrained_cfg.get("classifier") or ()
    heads = (classifier,) if isinstance(classifier, str) else tuple(classifier)
    state = model.state_dict()
    kept = [
        name
        for name, tensor in state.items()
        if not name.startswith(heads or ("\0",))
        and name not in given
        and tensor.is_floating_point()
        and tensor.numel() > 1
        and torch.equal(tensor, drawn[name])
    ]
    if kept:
        raise Refusal(
            f"{weights}: lacks {len(kept)} of the {len(state)} tensors of {net} ({kept[0]}, ...); give this net's own"
        )


def _reason(error: Exception) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__
