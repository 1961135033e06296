"""Test-time views: what they do to images. Their names are defined in foldvote.config.tta.

A view has two parts. Its steps (albumentations) change the uint8 pixels of one image at a time on the CPU, so that the
result depends neither on the batch nor on the device. Its move (a flip, rotation or crop) is applied to a batch of
normalised images on the device. Crops are enlarged by bilinear interpolation.
"""

import math
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from torch.nn import functional

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
        move: function of normalised images, float32 (batch, 3, height, width), that returns images of this shape.
    """

    name: str
    source: str | None
    change: Change | None
    move: Move


IDENTITY = View("identity", None, None, VIEWS["identity"])
"""The view that changes nothing."""


def ready_views(views: Iterable[str | dict[str, Any]], height: int, width: int) -> list[View]:
    """Make views ready for images of one size.

    Args:
        views: the entries of `predict.views` in the configuration.
        height: height of the images in pixels.
        width: width of the images in pixels.

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
    return [_ready(view, height, width) for view in entries]


def move_of(name: str) -> Move:
    """The move of a named view, such as `hflip` or `crop-centre-90`, of normalised images (batch, 3, height, width)."""
    if (crop := crop_of(name)) is not None:
        return partial(_cropped, position=crop[0], percent=crop[1])
    return VIEWS[name]


def _ready(view: str | dict[str, Any], height: int, width: int) -> View:
    if isinstance(view, str):
        return View(view, None, None, move_of(view))
    name = view["name"]
    return View(name, name, _steps_change(name, view["steps"], height, width), move_of(view.get("then") or "identity"))


def _steps_change(name: str, written: Any, height: int, width: int) -> Change:
    """The steps as a function of image and id; their random draws depend only on the name of the view and the id."""
    from foldvote.data.augmentation import augmenter, check_steps  # albumentations takes seconds to import

    steps = view_steps(written)
    raise_all(f"predict.views: {name}: {fault}" for fault in check_steps(steps, height, width))
    change = augmenter(steps, height, width)
    return lambda image, image_id: change(image, derive(0, "view", name, image_id))


def _cropped(images: torch.Tensor, position: str, percent: int) -> torch.Tensor:
    """Crop images to a part with the same proportions, and enlarge it to the size of the images.

    Args:
        images: float32 (batch, 3, height, width).
        position: position of the part: centre, or a corner such as top-left.
        percent: size of the part in percent of each side, rounded down to whole pixels.
    """
    height, width = images.shape[-2:]
    top, left, rows, columns = crop_box(height, width, position, percent)
    part = images[..., top : top + rows, left : left + columns]
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
