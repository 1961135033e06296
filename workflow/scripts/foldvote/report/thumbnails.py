"""Small pictures of the images on a page, loaded side by side."""

from collections.abc import Iterable, Mapping
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
from PIL import Image

from foldvote.config.data import Images
from foldvote.data.image_decoding import read_unchanged
from foldvote.report.data_check.gallery import _WORTH, Key
from foldvote.runtime.parallel_map import map_processes


def load_thumbnails(
    manifests: Mapping[str, pd.DataFrame], keys: Iterable[Key], root: Path, rules: Images, height: int, workers: int
) -> dict[Key, npt.NDArray[np.uint8]]:
    """Some images of the data, each decoded once and shrunk.

    Args:
        manifests: by split.
        keys: which images.
        root: the data folder.
        rules: how images are decoded.
        height: of a picture at most, in pixels; it is never wider than twice that.
        workers: processes.

    Returns:
        uint8 RGB arrays by key.

    Raises:
        UserError: naming an image that changed since the manifest was made.
    """
    keys = list(keys)
    files = {split: rows.set_index("image_id")[["path", "sha256"]] for split, rows in manifests.items()}
    work = [(image_id, *files[split].loc[image_id]) for split, image_id in keys]
    small = map_processes(partial(_resized, root, rules, height), work, workers, "shrinking pictures", worth=_WORTH)
    return dict(zip(keys, small, strict=True))


def _resized(root: Path, rules: Images, height: int, work: tuple[str, str, str]) -> npt.NDArray[np.uint8]:
    image_id, path, digest = work
    image = Image.fromarray(read_unchanged(root, path, digest, rules, image_id))
    image.thumbnail((2 * height, height), Image.Resampling.BOX)
    return np.asarray(image)
