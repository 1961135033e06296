"""Write the names that timm and albumentations know into the library: python docs/list_names.py."""

import inspect
import os
from collections.abc import Iterable
from typing import Any

os.environ["NO_ALBUMENTATIONS_UPDATE"] = "1"  # it would ask the network at import

import albumentations
import timm
import torch
from timm.optim import create_optimizer_v2, get_optimizer_class, list_optimizers

from foldvote.config.package_names import LIST
from foldvote.io.files import write_json
from foldvote.models.factory import patch_stride

# Aliases of sgd and sgdw, and one that needs second derivatives.
_LEFT_OUT = {"nesterov", "nesterovw", "adahessian"}
# What a recipe has keys for, and what no configuration can hold.
_NOT_GIVEN = {"lr", "weight_decay", "layer_decay"}
_NOT_GIVEN |= {"self", "params", "model_or_params", "opt", "param_group_fn", "kwargs"}
_BASES = {"BasicTransform", "DualTransform", "ImageOnlyTransform", "Transform3D"}


def patch_strides(nets: Iterable[str]) -> dict[str, int]:
    """The stride of the patches of each net that has any. All nets of timm take two minutes."""
    found = {}
    for net in nets:
        with torch.device("meta"):  # without memory for weights
            found[net] = patch_stride(timm.create_model(net, pretrained=False))
    return {net: stride for net, stride in found.items() if stride > 1}


def pretrained_weights() -> dict[str, dict[str, Any]]:
    """What timm says of its weights: `weights`, `default_tags` and `weights_from` of `package_names.listed`."""
    weights: dict[str, dict[str, str]] = {}
    sources = {}
    for name in timm.list_pretrained():
        known = timm.get_pretrained_cfg(name)
        net, tag = name.split(".", 1)
        weights.setdefault(net, {})[tag] = "" if known.license in (None, "unknown") else known.license
        source = known.hf_hub_id or known.url
        if source != f"timm/{name}":
            sources[name] = source
    tags = {net: timm.get_pretrained_cfg(net).tag for net in weights}
    chosen = {net: tag for net, tag in tags.items() if tag in weights[net]}
    return {"weights": weights, "default_tags": chosen, "weights_from": sources}


def optimizer_arguments() -> dict[str, list[str]]:
    """By optimizer the arguments that timm takes for it; eps and betas for all, though not all of them heed these."""
    own = (name for name in list_optimizers() if not name.startswith(("fused", "bnb")) and name not in _LEFT_OUT)
    of_all = {*inspect.signature(create_optimizer_v2).parameters, "eps", "betas"}
    return {
        name: sorted(
            {*of_all, *inspect.signature(get_optimizer_class(name, bind_defaults=False).__init__).parameters}
            - _NOT_GIVEN
        )
        for name in sorted(own)
    }


def installed_names() -> dict[str, Any]:
    """What `foldvote.config.package_names.listed` gives, without `patches`, from the installed packages themselves."""
    transforms = {
        name: sorted({*inspect.signature(kind.__init__).parameters, "p"} - {"self", "args", "kwargs"})
        for name, kind in vars(albumentations).items()
        if inspect.isclass(kind) and issubclass(kind, albumentations.BasicTransform) and name not in _BASES
    }
    return {
        "timm": {
            "version": timm.__version__,
            **pretrained_weights(),
            "nets": sorted(timm.list_models()),
            "optimizers": optimizer_arguments(),
        },
        "albumentations": {"version": albumentations.__version__, "transforms": transforms},
    }


if __name__ == "__main__":
    names = installed_names()
    names["timm"]["patches"] = patch_strides(names["timm"]["nets"])
    write_json(LIST, names)
