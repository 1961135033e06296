"""Thumbnails of images for a page, decoded by several processes."""

from collections.abc import Iterable, Mapping
from functools import partial

import numpy as np
import numpy.typing as npt
import pandas as pd
from PIL import Image

from foldvote.config.data import Images
from foldvote.data.image_decoding import read_unchanged
from foldvote.data.image_folders import Root, image_place
from foldvote.runtime.parallel_map import map_processes

Key = tuple[str, str]  # split and image id
_PER_PROCESS = 40  # images from which a further process saves more time than its start takes


def load_thumbnails(
    manifests: Mapping[str, pd.DataFrame], keys: Iterable[Key], root: Root, rules: Images, height: int, workers: int
) -> dict[Key, npt.NDArray[np.uint8]]:
    """Decode and shrink some images of the data.

    Args:
        manifests: manifest rows by split.
        keys: split and image id of each image.
        root: the data folder, or with it those of external data.
        rules: how images are decoded.
        height: the largest height of a thumbnail in pixels; its largest width is twice that.
        workers: number of processes.

    Returns:
        uint8 RGB arrays of shape (height, width, 3), by key.

    Raises:
        UserError: naming an image that has changed since the manifest was made.
    """
    keys = list(keys)
    files = {split: rows.set_index("image_id")[["path", "sha256"]] for split, rows in manifests.items()}
    work = [(image_id, *files[split].loc[image_id]) for split, image_id in keys]
    small = map_processes(
        partial(_resized, root, rules, height), work, workers, "making thumbnails", worth=_PER_PROCESS
    )
    return dict(zip(keys, small, strict=True))


def _resized(root: Root, rules: Images, height: int, work: tuple[str, str, str]) -> npt.NDArray[np.uint8]:
    image_id, path, digest = work
    image = Image.fromarray(read_unchanged(*image_place(root, path), digest, rules, image_id))
    image.thumbnail((2 * height, height), Image.Resampling.BOX)
    return np.asarray(image)
