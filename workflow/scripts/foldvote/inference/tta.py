"""What test-time views do to images, by the names of foldvote.config.tta.

A view changes the uint8 pixels first and then moves the normalised images. The first is done one image at a time on
the CPU, where OpenCV and albumentations are, so that a view is the same whatever the batch and the device; the second
a batch at a time on the device. Where a view enlarges or turns, pixels are interpolated bilinearly; beyond the edge
the image is mirrored.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any, NamedTuple

import cv2
import numpy as np
import torch
from torch.nn import functional

from foldvote.config.tta import PIXEL_WORDS, TtaStep, checked_views, parsed, turn_fault, view_name, view_steps
from foldvote.errors import raise_all
from foldvote.runtime.seeding import derive

Move = Callable[[torch.Tensor], torch.Tensor]
Change = Callable[[np.ndarray, str], np.ndarray]

VIEWS: dict[str, Move] = {
    "identity": lambda images: images,
    "hflip": lambda images: images.flip(-1),
    "vflip": lambda images: images.flip(-2),
}
"""The moves without a number."""

_TILES = (8, 8)


class View(NamedTuple):
    """A view made ready.

    Attributes:
        name: its name in the predictions.
        source: views of equal sources have the same pixels.
        change: of an image (uint8, height x width x RGB) and its id, giving a new one; None leaves it as it is.
        move: of normalised images, float32 (batch, 3, height, width), giving such images.
    """

    name: str
    source: tuple[Any, ...]
    change: Change | None
    move: Move


IDENTITY = View("identity", (None,), None, VIEWS["identity"])
"""The view that changes nothing."""


def ready_views(views: Iterable[str | dict[str, Any]], height: int, width: int) -> list[View]:
    """Make views ready for images of one size.

    Args:
        views: as `Predict.views` has them.
        height: of the images, in pixels.
        width: of the images, in pixels.

    Raises:
        UserError: if a view cannot be had of such images, or its steps do not keep them uint8 (height, width, 3).
        ValueError: if a name is no view's, or stands twice.
    """
    entries = checked_views(list(views))
    raise_all(
        f"predict.views: {view_name(view)}: {fault}, and these have {height}x{width}; drop it"
        for view in entries
        if (fault := turn_fault(view, height, width))
    )
    return [_ready(view, height, width) for view in entries]


def move_of(parts: Sequence[TtaStep]) -> Move:
    """The moves of a view, one after the other, as a function of normalised images (batch, 3, height, width)."""
    moves = [_move(part) for part in parts if part.word not in PIXEL_WORDS]

    def move(images: torch.Tensor) -> torch.Tensor:
        for one in moves:
            images = one(images)
        return images

    return move


def pixels_changed(image: np.ndarray, part: TtaStep) -> np.ndarray:
    """Change brightness or contrast, or even the contrast out.

    brightness: the values times 1 + number / 100. contrast: the same of their distance from the image's mean grey.
    clahe: contrast-limited adaptive histogram equalisation in 8 x 8 tiles (Zuiderveld, Graphics Gems IV, 1994), of
    the lightness in CIE L*a*b*, so that colours stay.

    Args:
        image: uint8 array (height, width, 3), RGB; it is not written to.
        part: one of tta.PIXEL_WORDS and its number.

    Returns:
        A new image of the same kind, values rounded and clipped to 0..255.
    """
    if part.word == "clahe":
        lab = cv2.cvtColor(image, cv2.COLOR_RGB2LAB)
        lab[..., 0] = cv2.createCLAHE(part.number, _TILES).apply(np.ascontiguousarray(lab[..., 0]))
        return cv2.cvtColor(lab, cv2.COLOR_LAB2RGB)
    fixed = 0.0 if part.word == "brightness" else float(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY).mean())
    values = fixed + (np.arange(256) - fixed) * (1 + part.number / 100)
    return cv2.LUT(image, np.rint(values).clip(0, 255).astype(np.uint8))


def _ready(view: str | dict[str, Any], height: int, width: int) -> View:
    name = view_name(view)
    written = view if isinstance(view, str) else view.get("then")
    parts = parsed(written) if written else ()
    on_pixels = tuple(part for part in parts if part.word in PIXEL_WORDS)
    changes: list[Change] = [partial(_change, part=part) for part in on_pixels]
    if isinstance(view, dict):
        changes.insert(0, _steps_change(name, view["steps"], height, width))
    source = (name if isinstance(view, dict) else None, *on_pixels)
    return View(name, source, _chained(changes) if changes else None, move_of(parts))


def _change(image: np.ndarray, _image_id: str, part: TtaStep) -> np.ndarray:
    return pixels_changed(image, part)


def _chained(changes: Sequence[Change]) -> Change:
    def change(image: np.ndarray, image_id: str) -> np.ndarray:
        for one in changes:
            image = one(image, image_id)
        return image

    return change


def _steps_change(name: str, written: Any, height: int, width: int) -> Change:
    """The steps as a function of image and id: what they draw depends on the view's name and the id alone."""
    from foldvote.data.augmentation import augmenter, check_steps  # albumentations takes seconds to import

    steps = view_steps(written)
    raise_all(f"predict.views: {name}: {fault}" for fault in check_steps(steps, height, width))
    change = augmenter(steps, height, width)
    return lambda image, image_id: change(image, derive(0, "view", name, image_id))


# --- moves


def _move(part: TtaStep) -> Move:
    if part.word in VIEWS:
        return VIEWS[part.word]
    if part.word == "rotate":
        return partial(_turned, degrees=part.number)
    if part.word == "scale":
        return partial(_scaled, percent=part.number)
    return partial(_cropped, position=part.word.removeprefix("crop-"), percent=part.number)


def _turned(images: torch.Tensor, degrees: float) -> torch.Tensor:
    """Turned anticlockwise about the centre; by quarters without interpolation."""
    if degrees % 90 == 0:
        return images.rot90(int(degrees // 90), (-2, -1))
    return _sampled(images, math.radians(degrees), 1.0)


def _scaled(images: torch.Tensor, percent: float) -> torch.Tensor:
    """The centre enlarged, or the whole made smaller (to whole pixels) with mirror images around it."""
    if percent > 100:
        return _sampled(images, 0.0, percent / 100)
    inner = [max(round(side * percent / 100), 1) for side in images.shape[-2:]]
    small = functional.interpolate(images, inner, mode="bilinear", align_corners=False, antialias=True)
    rows, columns = (
        torch.from_numpy(_mirrored(less, side)).to(images.device)
        for less, side in zip(inner, images.shape[-2:], strict=True)
    )
    return small.index_select(-2, rows).index_select(-1, columns)


def _mirrored(less: int, side: int) -> np.ndarray:
    """Which of `less` pixels stands at each of `side` places."""
    before = (side - less) // 2
    return np.pad(np.arange(less), (before, side - less - before), mode="symmetric")


def _cropped(images: torch.Tensor, position: str, percent: float) -> torch.Tensor:
    """A part in the whole's shape, to whole pixels and at least one smaller, brought back to its size."""
    height, width = images.shape[-2:]
    inner = [max(math.floor(side * percent / 100), 1) for side in (height, width)]
    top, left = (height - inner[0]) // 2, (width - inner[1]) // 2
    words = position.split("-")
    top = 0 if "top" in words else height - inner[0] if "bottom" in words else top
    left = 0 if "left" in words else width - inner[1] if "right" in words else left
    part = images[..., top : top + inner[0], left : left + inner[1]]
    return functional.interpolate(part, (height, width), mode="bilinear", align_corners=False)


def _sampled(images: torch.Tensor, angle: float, zoom: float) -> torch.Tensor:
    """Turned anticlockwise by `angle` (radians) and enlarged about the centre.

    The grid is made of sums and products in float32: a matrix product would lose digits under autocast.
    """
    height, width = images.shape[-2:]
    y = (torch.arange(height, device=images.device, dtype=torch.float32) - (height - 1) / 2)[:, None] / zoom
    x = (torch.arange(width, device=images.device, dtype=torch.float32) - (width - 1) / 2)[None, :] / zoom
    sine, cosine = math.sin(angle), math.cos(angle)
    # Pixels from the centre to shares of the half sides, edges and not centres of the outer pixels at -1 and 1.
    grid = torch.stack([(cosine * x - sine * y) * (2 / width), (sine * x + cosine * y) * (2 / height)], dim=-1)
    return functional.grid_sample(
        images, grid.expand(len(images), -1, -1, -1), "bilinear", padding_mode="reflection", align_corners=False
    )
