"""What the manifest keeps of one image file. Small and light, as worker processes import it."""

import hashlib
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import imagehash
import numpy as np
from PIL import Image

from foldvote.config.data import Images
from foldvote.data.image_decoding import BadImage, read_image


@dataclass(frozen=True)
class AcceptedImage:
    """An accepted image: size in pixels (upright), real format, bytes, hashes, and flags joined by `+`."""

    width: int
    height: int
    format: str
    bytes: int
    sha256: str
    phash: str
    flags: str


@dataclass(frozen=True)
class RejectedImage:
    """A refused image: reason code and message."""

    reason: str
    message: str


def inspector(root: Path, rules: Images) -> partial[AcceptedImage | RejectedImage]:
    """`inspect` for one data folder, fit to be sent to worker processes."""
    return partial(inspect, root, rules)


def inspect(root: Path, rules: Images, relative: str) -> AcceptedImage | RejectedImage:
    """Decode one image and keep what the manifest needs; a bad image is an answer, no exception."""
    try:
        data, decoded = read_image(root, relative, rules)
    except BadImage as bad:
        return RejectedImage(bad.reason, bad.message)
    return AcceptedImage(
        decoded.width,
        decoded.height,
        decoded.format,
        len(data),
        hashlib.sha256(data).hexdigest(),
        perceptual_hash(decoded.pixels),
        "+".join(decoded.flags),
    )


def perceptual_hash(pixels: np.ndarray) -> str:
    """The 64-bit DCT hash of an RGB image as 16 hex digits: near-equal pictures differ in few bits."""
    return str(imagehash.phash(Image.fromarray(pixels)))
