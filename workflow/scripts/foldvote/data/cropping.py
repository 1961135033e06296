"""Cropping of regions of interest and faces, and resizing, which may keep the aspect ratio."""

import cv2
import numpy as np

from foldvote.config.image_size import Framing, parse_size
from foldvote.errors import UserError

Region = tuple[float, float, float, float]
_BARS = (128, 128, 128)  # beside a padded image: the middle grey, which no normalisation moves far from zero


def cut(image: np.ndarray, framing: Framing, box: Region | None) -> np.ndarray:
    """Crop an image to the region of interest and make it fit: what a network of this framing sees.

    Args:
        image: uint8 array of shape (height, width, 3).
        framing: region, size, and how the one becomes the other.
        box: for `face-MARGIN` the face; None crops the centre.

    Returns:
        uint8 array of shape (*framing.shape, 3).

    Raises:
        UserError: if the region lies outside the image.
    """
    shape = framing.shape
    if framing.of_faces:
        return resize(crop_face(image, box, float(framing.roi.removeprefix("face-")), shape), *shape)
    region = crop_region(image, framing.roi)
    if framing.fit == "pad":
        return padded(region, *shape)
    return resize(crop_face(region, None, 0.0, shape) if framing.fit == "crop" else region, *shape)


def crop_region(image: np.ndarray, roi: str) -> np.ndarray:
    """Crop the region of interest of an image; the result is a view.

    Args:
        image: uint8 array of shape (height, width, 3).
        roi: `none`, `centre-HxW` (at most the whole image) or `box-LEFT-TOP-RIGHT-BOTTOM` (clipped to the
            image).

    Raises:
        UserError: if a box lies outside the image.
    """
    if roi == "none":
        return image
    kind, rest = roi.split("-", 1)
    height, width = image.shape[:2]
    if kind == "centre":
        crop_height, crop_width = (min(a, b) for a, b in zip(parse_size(rest), (height, width), strict=True))
        top, left = (height - crop_height) // 2, (width - crop_width) // 2
        return image[top : top + crop_height, left : left + crop_width]
    left, top, right, bottom = (int(part) for part in rest.split("-"))
    region = image[top:bottom, left:right]
    if region.size == 0:
        raise UserError(
            f"roi {roi} lies outside an image of {width}x{height} (width x height); correct the recipe's roi"
        )
    return region


def crop_face(image: np.ndarray, box: Region | None, margin: float, shape: tuple[int, int]) -> np.ndarray:
    """Crop a face with a margin, in the aspect ratio of the output; the result is a view.

    Args:
        image: uint8 array of shape (height, width, 3).
        box: left, top, right, bottom in pixels, within the image; None crops the largest possible centre.
        margin: what is added on each side, as a share of the box's width and height.
        shape: height and width of the output.
    """
    height, width = image.shape[:2]
    left, top, right, bottom = face_region(box, margin, (height, width), shape)
    return image[top:bottom, left:right]


def face_region(
    box: Region | None, margin: float, image: tuple[int, int], shape: tuple[int, int]
) -> tuple[int, int, int, int]:
    """The region of a face with its margin.

    The box is enlarged by the margin, then one side is enlarged to the output's aspect ratio. If the region is larger
    than the image, it is reduced in both directions, so that a face is never stretched; if it crosses the edge of the
    image, it is moved inwards.

    Args:
        box: left, top, right, bottom in pixels, within the image; None is the whole image.
        margin: what is added on each side, as a share of the box's width and height.
        image: height and width of the image.
        shape: height and width of the output.

    Returns:
        left, top, right, bottom: whole pixels within the image, at least one pixel wide and high.
    """
    left, top, right, bottom = box or (0.0, 0.0, float(image[1]), float(image[0]))
    wanted = max((bottom - top) * (1 + 2 * margin) / shape[0], (right - left) * (1 + 2 * margin) / shape[1])
    scale = min(wanted, image[0] / shape[0], image[1] / shape[1])  # pixels of the image for one of the output
    height, width = (min(max(round(scale * wished), 1), most) for wished, most in zip(shape, image, strict=True))
    first_row = min(max(round((top + bottom - height) / 2), 0), image[0] - height)
    first_column = min(max(round((left + right - width) / 2), 0), image[1] - width)
    return first_column, first_row, first_column + width, first_row + height


def resize(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """Resize to uint8 (height, width, 3): area averaging to shrink, bicubic to enlarge."""
    shrinks = image.shape[0] * image.shape[1] >= height * width
    return cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_CUBIC)


def padded(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """Resize to uint8 (height, width, 3) in the image's own aspect ratio: all of it in the middle, grey bars beside it.

    Args:
        image: uint8 array of shape (height, width, 3).
        height: height of the output.
        width: width of the output.
    """
    scale = min(height / image.shape[0], width / image.shape[1])
    rows, columns = (max(round(scale * side), 1) for side in image.shape[:2])
    top, left = (height - rows) // 2, (width - columns) // 2
    framed = np.empty((height, width, 3), np.uint8)
    framed[:] = _BARS
    framed[top : top + rows, left : left + columns] = resize(image, rows, columns)
    return framed
