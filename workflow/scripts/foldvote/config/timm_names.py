"""Names known to timm: its nets and its optimizers."""

from collections.abc import Iterable, Iterator
from functools import cache

from foldvote.config.image_size import parse_size
from foldvote.config.package_names import listed, may_know
from foldvote.errors import did_you_mean

_OF_RECIPE = ("lr", "weight_decay", "layer_decay")  # keys of a recipe that are arguments of an optimizer


def known_name(given: str, name: str, known: frozenset[str], complaint: str) -> str:
    """`given`, or a ValueError where timm does not know `name`.

    Args:
        given: as it is written in the configuration.
        name: the part of it that must be known.
        known: the listed names.
        complaint: the beginning of the error, such as "timm knows no net".
    """
    if name not in known and not may_know("timm", name):
        raise ValueError(f"{complaint} {given!r}{did_you_mean(given, known)}")
    return given


@cache
def net_names() -> frozenset[str]:
    """Names of timm's nets."""
    return frozenset(listed()["timm"]["nets"])


def patch_stride(net: str) -> int:
    """The number of pixels of which both sides of a net's images must be multiples; 1 if any, or the net is not listed.

    Args:
        net: its name, without the tag of its weights.
    """
    return listed()["timm"]["patches"].get(net, 1)


def tiling_faults(net: str, size: str, stride: int) -> list[str]:
    """Why a network would not see all of its images, with the next sizes that fit; none if it does.

    Args:
        net: its name.
        size: height x width of the images.
        stride: number of pixels of which both sides must be multiples.
    """
    height, width = parse_size(size)
    if height % stride == 0 and width % stride == 0:
        return []
    smaller = f"{height // stride * stride}x{width // stride * stride}"
    larger = f"{-(-height // stride) * stride}x{-(-width // stride) * stride}"
    fitting = larger if height < stride or width < stride else f"{smaller} or {larger}"
    return [f"size {size}: {net} takes patches of {stride} pixels and would see only {smaller} of it; set {fitting}"]


@cache
def optimizer_names() -> frozenset[str]:
    """Names of timm's optimizers that need no further package and no second derivative."""
    return frozenset(listed()["timm"]["optimizers"])


def optimizer_faults(optimizer: str, arguments: Iterable[str]) -> Iterator[str]:
    """One line for each argument that an optimizer does not have; none for an optimizer that is not listed.

    Args:
        optimizer: its name.
        arguments: names of `optimizer_args`.
    """
    known = listed()["timm"]["optimizers"].get(optimizer)
    for name in arguments if known else ():
        if name in _OF_RECIPE:
            yield f"{name} is a key of its own; write it beside optimizer"
        elif name not in known and not may_know("timm", name):
            yield f"{optimizer} has no argument {name!r}{did_you_mean(name, known)}"
