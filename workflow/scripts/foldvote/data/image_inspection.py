"""The inspection of one image file for the manifest: size, format, hashes, flags, or why it is rejected."""

import hashlib
from dataclasses import dataclass
from functools import partial

import imagehash
import numpy as np
from PIL import Image

from foldvote.config.data import Images
from foldvote.data.image_decoding import BadImage, read_image
from foldvote.data.image_folders import Root, image_place


@dataclass(frozen=True)
class AcceptedImage:
    """An accepted image.

    Attributes:
        width, height: in pixels, upright.
        format: the format by content, such as `PNG`.
        bytes: size of the file.
        sha256: digest of the file, 64 hex digits.
        phash: perceptual hash, 16 hex digits.
        flags: the flags of image_decoding.Decoded, joined by `+`.
    """

    width: int
    height: int
    format: str
    bytes: int
    sha256: str
    phash: str
    flags: str


@dataclass(frozen=True)
class RejectedImage:
    """A rejected image: reason code and message of image_decoding.BadImage."""

    reason: str
    message: str


def inspector(root: Root, rules: Images) -> partial[AcceptedImage | RejectedImage]:
    """`inspect` for one data folder, as a function of the relative path that can be sent to worker processes."""
    return partial(inspect, root, rules)


def inspect(root: Root, rules: Images, relative: str) -> AcceptedImage | RejectedImage:
    """Decode one image file and collect what the manifest needs.

    Args:
        root: the data folder, or with it those of external data.
        rules: which images are accepted.
        relative: path of the image, as in the manifest.

    Returns:
        The accepted image, or the reason for its rejection; a bad image raises nothing.
    """
    try:
        data, decoded = read_image(*image_place(root, relative), rules)
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
    """The 64-bit DCT hash of an RGB image as 16 hex digits: similar images differ in few bits."""
    return str(imagehash.phash(Image.fromarray(pixels)))
