"""A class heat map laid over its image."""

import matplotlib
import numpy as np
import numpy.typing as npt
from PIL import Image

_OPAQUE = 0.65  # of the colour where a network looks most


def overlay(pixels: npt.NDArray[np.uint8], heat: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """A picture in grey with the heat as colour over it: uint8 RGB of the picture's shape (height, width, 3)."""
    height, width = pixels.shape[:2]
    grey = np.asarray(Image.fromarray(pixels).convert("L").convert("RGB"), np.float64)
    shares = np.asarray(Image.fromarray(heat).resize((width, height), Image.Resampling.BILINEAR), np.float64) / 255
    colours = matplotlib.colormaps["plasma"](shares)[..., :3] * 255
    opaque = _OPAQUE * shares[..., None]
    return (grey * (1 - opaque) + colours * opaque).round().astype(np.uint8)
