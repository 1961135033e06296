"""Test-time views: what they do to images. Their names are defined in foldvote.config.tta.

A view has two parts. Its steps (albumentations) change the uint8 pixels of one image at a time on the CPU, so that the
result depends neither on the batch nor on the device. Its move (a flip, rotation or crop) is applied to a batch of
normalised images on the device. Crops are enlarged by bilinear interpolation. Where images are packed larger than the
network takes them (a recipe's `pack`), a move shrinks what it shows by area averaging.
"""

import math
from collections.abc import Callable, Iterable
from functools import lru_cache, partial
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional

from foldvote.config.image_size import parse_size
from foldvote.config.recipe import Recipe
from foldvote.config.tta import checked_views, crop_of, turn_fault, view_name, view_steps
from foldvote.errors import raise_all
from foldvote.runtime.seeding import derive

Move = Callable[[torch.Tensor], torch.Tensor]
Change = Callable[[np.ndarray, str], np.ndarray]

VIEWS: dict[str, Move] = {
    "identity": lambda images: images,
    "hflip": lambda images: images.flip(-1),
    "vflip": lambda images: images.flip(-2),
    "rot90": lambda images: images.rot90(1, (-2, -1)),
    "rot180": lambda images: images.rot90(2, (-2, -1)),
    "rot270": lambda images: images.rot90(3, (-2, -1)),
}
"""The moves of the named views except crops, for images (batch, 3, height, width); rotations are anticlockwise."""


class View(NamedTuple):
    """A view that is ready for images of one size.

    Attributes:
        name: name of the view in the predictions.
        source: name of the view whose steps make the pixels; None for the packed pixels. Views with equal sources have
            equal pixels.
        change: function of an image, uint8 (height, width, RGB), and its id that returns a new image; None if the view
            has no steps.
        move: function of normalised images, float32 (batch, 3, height, width), that returns images of the size that the
            network takes.
    """

    name: str
    source: str | None
    change: Change | None
    move: Move


IDENTITY = View("identity", None, None, VIEWS["identity"])
"""The view that changes nothing."""


def plain_view(recipe: Recipe) -> View:
    """The view that shows packed images as they are, or averaged down to the size that the network takes."""
    seen = parse_size(recipe.size)
    return IDENTITY if recipe.packed.shape == seen else IDENTITY._replace(move=partial(resized, size=seen))


def views_of(recipe: Recipe, views: Iterable[str | dict[str, Any]]) -> list[View]:
    """Make views ready for the packed images of a recipe; the arguments and errors are those of `ready_views`."""
    return ready_views(views, *recipe.packed.shape, parse_size(recipe.size))


def ready_views(
    views: Iterable[str | dict[str, Any]], height: int, width: int, seen: tuple[int, int] | None = None
) -> list[View]:
    """Make views ready for images of one size.

    Args:
        views: the entries of `predict.views` in the configuration.
        height: height of the images in pixels.
        width: width of the images in pixels.
        seen: height and width of what the network takes; None: those of the images.

    Raises:
        UserError: if a view is not possible for images of this size, or its steps change their shape or type.
        ValueError: if a name is unknown or occurs twice.
    """
    entries = checked_views(list(views))
    raise_all(
        f"predict.views: {view_name(view)}: {fault}, and these have {height}x{width}; drop it"
        for view in entries
        if (fault := turn_fault(view, height, width))
    )
    seen = None if seen == (height, width) else seen
    return [_ready(view, height, width, seen) for view in entries]


def move_of(name: str, seen: tuple[int, int] | None = None) -> Move:
    """The move of a named view, such as `hflip` or `crop-centre-90`, of normalised images (batch, 3, height, width).

    Args:
        name: the view.
        seen: height and width of what it shows, smaller than the images; None: those of the images.
    """
    if (crop := crop_of(name)) is not None:
        return partial(_cropped, position=crop[0], percent=crop[1], seen=seen)
    if seen is None:
        return VIEWS[name]
    return lambda images: VIEWS[name](resized(images, seen))


def _ready(view: str | dict[str, Any], height: int, width: int, seen: tuple[int, int] | None) -> View:
    if isinstance(view, str):
        return View(view, None, None, move_of(view, seen))
    name = view["name"]
    change = _steps_change(name, view["steps"], height, width)
    return View(name, name, change, move_of(view.get("then") or "identity", seen))


def _steps_change(name: str, written: Any, height: int, width: int) -> Change:
    """The steps as a function of image and id; their random draws depend only on the name of the view and the id."""
    from foldvote.data.augmentation import augmenter, check_steps  # albumentations takes seconds to import

    steps = view_steps(written)
    raise_all(f"predict.views: {name}: {fault}" for fault in check_steps(steps, height, width))
    change = augmenter(steps, height, width)
    return lambda image, image_id: change(image, derive(0, "view", name, image_id))


def _cropped(images: torch.Tensor, position: str, percent: int, seen: tuple[int, int] | None) -> torch.Tensor:
    """Crop images to a part with the same proportions, and resize it.

    Args:
        images: float32 (batch, 3, height, width).
        position: position of the part: centre, or a corner such as top-left.
        percent: size of the part in percent of each side, rounded down to whole pixels.
        seen: height and width of the result; None: those of the images.
    """
    height, width = images.shape[-2:]
    top, left, rows, columns = crop_box(height, width, position, percent)
    part = images[..., top : top + rows, left : left + columns]
    if seen is not None:
        return resized(part, seen)
    return functional.interpolate(part, (height, width), mode="bilinear", align_corners=False)


def crop_box(height: int, width: int, position: str, percent: int) -> tuple[int, int, int, int]:
    """The part of images that a crop shows: its top, left, height and width in pixels.

    Args:
        height: height of the images in pixels.
        width: width of the images in pixels.
        position: position of the part: centre, or a corner such as top-left.
        percent: size of the part in percent of each side, rounded down to whole pixels.
    """
    rows, columns = (max(math.floor(side * percent / 100), 1) for side in (height, width))
    top, left = (height - rows) // 2, (width - columns) // 2
    words = position.split("-")
    top = 0 if "top" in words else height - rows if "bottom" in words else top
    left = 0 if "left" in words else width - columns if "right" in words else left
    return top, left, rows, columns


def resized(images: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """Resize normalised images by `axis_weights`: products of matrices, which are exact on every device and in ONNX.

    Args:
        images: float32 (batch, 3, old height, old width).
        size: height and width of the result in pixels.
    """
    rows, columns = (
        torch.from_numpy(axis_weights(old, new)).to(images.device)
        for old, new in zip(images.shape[-2:], size, strict=True)
    )
    with torch.autocast(images.device.type, enabled=False):
        return rows @ (images @ columns.T)


@lru_cache
def axis_weights(old: int, new: int) -> npt.NDArray[np.float32]:
    """What each new pixel of one axis takes from each old one: float32 (new, old), whose rows sum to 1.

    Fewer pixels average the area that they cover; more are interpolated linearly between the centres of the old ones.
    """
    if new <= old:
        edges, cells = np.arange(new + 1) * (old / new), np.arange(old)
        weights = np.minimum(edges[1:, None], cells + 1) - np.maximum(edges[:-1, None], cells)
    else:
        centres = np.clip((np.arange(new) + 0.5) * (old / new) - 0.5, 0, old - 1)
        weights = 1 - np.abs(centres[:, None] - np.arange(old))
    weights = np.clip(weights, 0, None)
    found: npt.NDArray[np.float32] = (weights / weights.sum(axis=1, keepdims=True)).astype(np.float32)
    return found
