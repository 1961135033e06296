"""Class heat maps drawn over their images."""

import matplotlib
import numpy as np
import numpy.typing as npt
from PIL import Image

_MOST_OPACITY = 0.65  # where the heat map is largest


def overlay(pixels: npt.NDArray[np.uint8], heat: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """Draw a heat map over the grey version of an image.

    Args:
        pixels: uint8 RGB of shape (height, width, 3).
        heat: uint8 of any shape (rows, columns); it is stretched over the image.

    Returns:
        uint8 RGB of the image's shape.
    """
    height, width = pixels.shape[:2]
    grey = np.asarray(Image.fromarray(pixels).convert("L").convert("RGB"), np.float64)
    shares = np.asarray(Image.fromarray(heat).resize((width, height), Image.Resampling.BILINEAR), np.float64) / 255
    colours = matplotlib.colormaps["plasma"](shares)[..., :3] * 255
    opacity = _MOST_OPACITY * shares[..., None]
    return (grey * (1 - opacity) + colours * opacity).round().astype(np.uint8)
