"""Where images lie: below the data folder, or below that of a block of external data.

The manifest's column `path` holds a path below the data folder, and for external data `BLOCK://` and a path below the
block's folder. No other path looks like this, as `io.paths.tidy` leaves no doubled slash.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

_MARK = "://"


@dataclass(frozen=True)
class ImageFolders:
    """The data folder, and the folders of external data by the names of their blocks."""

    own: Path
    external: Mapping[str, str]


Root = Path | ImageFolders


def image_folders(root: str, external: str) -> ImageFolders:
    """The folders that a rule's parameters name: the data folder, and a JSON object of the others by name."""
    return ImageFolders(Path(root), json.loads(external))


def external_path(block: str, path: str) -> str:
    """What the manifest calls an image of a block of external data, whose folder has it at `path`."""
    return f"{block}{_MARK}{path}"


def block_of(paths: "pd.Series[str]") -> "pd.Series[str]":
    """The block of external data that each path of a manifest belongs to; empty for the data itself."""
    return paths.where(paths.str.contains(_MARK, regex=False), "").str.partition(_MARK)[0]


def image_place(root: Root, path: str) -> tuple[Path, str]:
    """The folder that an image of a manifest lies below, and its path there.

    Args:
        root: the data folder; with those of external data where the manifest has such images.
        path: as in the manifest.
    """
    block, mark, below = path.partition(_MARK)
    if isinstance(root, ImageFolders):
        return (Path(root.external[block]), below) if mark else (root.own, path)
    return root, path
