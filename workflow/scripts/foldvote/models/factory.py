"""Networks of timm, from scratch or with pretrained weights from a local file; nothing is downloaded."""

import os
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"  # otherwise timm retries for most of a minute

import timm
import torch
from torch import nn

from foldvote.config.image_size import parse_size
from foldvote.config.recipe import Recipe
from foldvote.config.timm_names import tiling_faults
from foldvote.data.label_space import LabelSpace
from foldvote.data.metadata import Encoding
from foldvote.errors import UserError
from foldvote.models.heads import HeadWithMetadata, in_float32, keeps_classifier, make_head
from foldvote.runtime.seeding import derive


def build_model(
    recipe: Recipe,
    label_space: LabelSpace,
    seed: int,
    weights: Path | None = None,
    bands: Mapping[str, Sequence[float]] | None = None,
    metadata: Encoding | None = None,
) -> nn.Module:
    """Build a network with random or pretrained weights.

    Args:
        recipe: the recipe; net, size, drop_rate, drop_path, heads and grad_checkpointing are used.
        label_space: the classes of the network: one logit per class.
        seed: seed of the random weights.
        weights: a local file with pretrained weights (.safetensors, or .pth of plain tensors), whose classifier is not
            used. None: from scratch.
        bands: borders of the bands of each factor that bins a number, for a regression head.
        metadata: how metadata becomes numbers, for a recipe with `metadata`. The network is then called with images
            (batch, 3, height, width) and these numbers, float32 (batch, width); with images alone theirs are missing.

    Raises:
        UserError: if the network cannot be built with this size, head or options, or the file is missing, is not a
            plain weights file, or does not fit the network.
    """
    if weights is not None and not weights.is_file():
        raise UserError(f"{weights}: no such weights file; correct the recipe's `pretrained`, or set it to null")
    options: dict[str, object] = {
        "num_classes": len(label_space.classes),
        "drop_rate": recipe.drop_rate if keeps_classifier(recipe) else 0.0,  # other heads have dropout of their own
    }
    if recipe.drop_path > 0:
        options["drop_path_rate"] = recipe.drop_path
    if (metadata is None) != (recipe.metadata is None):
        raise ValueError(
            f"{recipe.net}: an encoding of metadata belongs to a recipe that has metadata, and to no other"
        )
    head = partial(make_head, recipe, label_space, bands=bands, metadata=metadata)
    finish = partial(_replace_head, recipe=recipe, seed=seed, make=head)
    try:
        model = _drawn_model(recipe, seed, options, finish)
    except UserError:
        raise
    except Exception as error:
        if "drop_path_rate" in str(error):
            raise UserError(f"{recipe.net}: has no stochastic depth; drop the recipe's drop_path") from error
        raise UserError(
            f"{recipe.net}: cannot be made for images of {recipe.size} ({_reason(error)}); correct the recipe's net or "
            "size"
        ) from error
    if weights is not None:
        model = finish(_pretrained_model(recipe, seed, options, weights, model.state_dict()))
    if recipe.grad_checkpointing:
        _checkpoint_gradients(model, recipe.net)
    return model


def head_modules(model: nn.Module) -> list[nn.Module]:
    """The classifiers of a network: usually one; a distilled network has two, whose logits it averages."""
    heads = model.get_classifier() if hasattr(model, "get_classifier") else None
    return [heads] if isinstance(heads, nn.Module) else list(heads or ())


def head_inputs(model: nn.Module) -> Callable[[], torch.Tensor]:
    """Keep what enters the head of a network, its first one if it has two.

    Returns:
        A function that gives the features of the last forward pass, float (batch, features), once.

    Raises:
        UserError: if the network has no head.
    """
    heads, kept = head_modules(model), list[torch.Tensor]()
    if not heads:
        raise UserError(f"{type(model).__name__}: this net has no classifier of its own; drop sup_con from the loss")

    def keep(_head: nn.Module, given: tuple[torch.Tensor, ...]) -> None:
        kept[:] = given[:1] if torch.is_grad_enabled() else ()

    heads[0].register_forward_pre_hook(keep)
    return lambda: kept.pop().flatten(1)


def head_parameters(model: nn.Module) -> set[str]:
    """Names of the parameters of a network's head, the only ones that are trained while the backbone is frozen.

    Raises:
        UserError: if the network has no head.
    """
    held = {id(parameter) for part in head_modules(model) for parameter in part.parameters()}
    names = {name for name, parameter in model.named_parameters() if id(parameter) in held}
    if not names:
        raise UserError(
            f"{type(model).__name__}: this net has no classifier of its own; drop freeze_epochs and head_lr_factor"
        )
    return names


def metadata_width(model: nn.Module) -> int:
    """Number of numbers of an image's metadata that a network is called with beside the image; 0: the image alone."""
    return sum(head.width for head in head_modules(model) if isinstance(head, HeadWithMetadata))


def patch_stride(model: nn.Module) -> int:
    """The number of pixels of which both sides of an image must be multiples, so that the network sees all of it.

    Layers that cut an image into patches ignore what is left over at the right and at the bottom, unless they pad.
    Convolutions of stride 2 without padding, as in Inception, lose one pixel at most, and take any size.

    Args:
        model: the network; its weights are not used.

    Returns:
        The stride of the patches; the smallest one of a network with several stems; 1 if every size fits.
    """
    padded = [layer for layer in model.modules() if getattr(layer, "dynamic_img_pad", False) is True]
    stems = [layer for layer in model.modules() if isinstance(layer, nn.Conv2d) and layer.in_channels == 3]
    strides = [max(stem.stride) if max(stem.stride) > 2 and stem.padding == (0, 0) else 1 for stem in stems]
    unfolding = (layer for layer in model.modules() if isinstance(getattr(layer, "unfold", None), nn.Unfold))
    cut = [max(layer.patch_size) for layer in unfolding if hasattr(layer, "patch_size")]  # as in TNT
    return 1 if padded else cut[0] if cut else min(strides, default=1)


def to_sync_batchnorm(model: nn.Module) -> nn.Module:
    """Convert batch normalisation so that its statistics are over the images of all processes of the default group."""
    return timm.layers.convert_sync_batchnorm(model)


def normalisation(model: nn.Module, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean and standard deviation that normalise a network's inputs: float32 tensors (1, 3, 1, 1) on the device."""
    data = timm.data.resolve_model_data_config(model)
    mean, std = (torch.tensor(data[name], dtype=torch.float32, device=device) for name in ("mean", "std"))
    return mean.view(1, -1, 1, 1), std.view(1, -1, 1, 1)


def _drawn_model(
    recipe: Recipe, seed: int, options: dict[str, object], finish: Callable[[nn.Module], nn.Module]
) -> nn.Module:
    """Build a network from scratch and run it on one black image: an unsuitable size fails before any data is read."""
    default = timm.get_pretrained_cfg(recipe.net)
    if default is not None and default.fixed_input_size:
        options["img_size"] = parse_size(recipe.size)
    torch.manual_seed(seed)
    model = finish(timm.create_model(recipe.net, pretrained=False, **options))
    if faults := tiling_faults(recipe.net, recipe.size, patch_stride(model)):
        raise UserError(*faults)
    with torch.no_grad():
        model.eval()(torch.zeros(1, 3, *parse_size(recipe.size)))
    return model.train()


def _pretrained_model(
    recipe: Recipe, seed: int, options: dict[str, object], weights: Path, drawn: dict[str, torch.Tensor]
) -> nn.Module:
    """Build a network with the weights of a file, and check that all of them were loaded; its classifier is random.

    `drawn` is the state of the same network with random weights.
    """
    try:
        # Read before timm reads it, and never as a pickle, whatever timm's own default is.
        given = set(timm.models.load_state_dict(str(weights), device="cpu", weights_only=True))
        # Another number of classes than any task has: else a task with as many would keep the file's classifier.
        # custom_load: some nets have a loader of their own for the file of their authors, which no other file is.
        overlay = {"file": str(weights), "num_classes": 0, "custom_load": False}
        torch.manual_seed(seed)
        model = timm.create_model(recipe.net, pretrained=True, pretrained_cfg_overlay=overlay, **options)
    except Exception as error:
        raise UserError(
            f"{weights}: does not load into {recipe.net} ({_reason(error)}); give this net's own weights"
        ) from error
    _check_loaded(model, drawn, given, weights, recipe.net)
    return model


def _replace_head(model: nn.Module, recipe: Recipe, seed: int, make: Callable[[int], nn.Module | None]) -> nn.Module:
    """Replace timm's linear classifier by the recipe's head, under the same name; a joint head keeps its weights.

    `make` makes the head for a number of features.

    Every head computes in float32: of logits in bfloat16, which has eight bits of precision, many are equal.
    """
    if keeps_classifier(recipe):
        heads = {id(layer) for head in head_modules(model) for layer in head.modules()}
        for name, layer in [(name, layer) for name, layer in model.named_modules() if name and id(layer) in heads]:
            model.set_submodule(name, in_float32(layer), strict=True)
        return model
    classifier = model.get_classifier()
    name = next((name for name, module in model.named_modules() if module is classifier), "")
    if not isinstance(classifier, nn.Linear) or not name:
        raise UserError(
            f"{recipe.net}: this net's classifier is no linear layer; use heads: joint, dropout_samples: 1 and no "
            "metadata"
        )
    torch.manual_seed(derive(seed, "head"))
    head = make(classifier.in_features)
    assert head is not None
    model.set_submodule(name, head, strict=True)
    if isinstance(head, HeadWithMetadata):
        model.register_forward_pre_hook(head.take_metadata)
    return model


def _checkpoint_gradients(model: nn.Module, net: str) -> None:
    try:
        model.set_grad_checkpointing(True)
    except Exception as error:
        raise UserError(
            f"{net}: cannot compute activations again ({_reason(error)}); drop the recipe's grad_checkpointing"
        ) from error


def _check_loaded(model: nn.Module, drawn: dict[str, torch.Tensor], given: set[str], weights: Path, net: str) -> None:
    """Check that no tensor still has its random values: timm loads what fits and ignores the rest.

    Names alone are not enough, because timm also maps older names; `given` are the names in the file.
    """
    classifier = model.pretrained_cfg.get("classifier") or ()
    heads = (classifier,) if isinstance(classifier, str) else tuple(classifier)
    state = model.state_dict()
    kept = [
        name
        for name, tensor in state.items()
        if not name.startswith(heads or ("\0",))
        and name not in given
        and name in drawn
        and tensor.is_floating_point()
        and tensor.numel() > 1
        and torch.equal(tensor, drawn[name])
    ]
    if kept:
        raise UserError(
            f"{weights}: lacks {len(kept)} of the {len(state)} tensors of {net} ({kept[0]}, ...); give this net's own"
        )


def _reason(error: Exception) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__
