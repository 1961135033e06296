"""A digest of the image files of a split: cheap enough for every start of the workflow.

It takes names and sizes, so that an added, removed or replaced photograph reruns the manifest, and a touched one
does not. Imports neither pandas nor Pillow.
"""

import csv
import hashlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Literal

from foldvote.config.data import DataSettings, ImageList
from foldvote.io.paths import files_below, relative_fault

Split = Literal["train", "test"]


def listing_digest(config: DataSettings, split: Split) -> str:
    """SHA-256 over the sorted paths and sizes of the image files that belong to a split.

    What is wrong with the files is no matter here: the manifest stage tells it. Files that the workflow draws itself
    are known to it as outputs, and give a constant.

    Args:
        config: the configuration.
        split: `train` or `test`.
    """
    digest = hashlib.sha256()
    if config.data.drawn is None:
        for path, size in sorted(_files(config, split)):
            digest.update(f"{path}\0{size}\n".encode(errors="surrogateescape"))
    return digest.hexdigest()


def _files(config: DataSettings, split: Split) -> Iterable[tuple[str, int]]:
    if split == "test" and not config.has_test:
        return ()
    folder, listed = config.data.image_folder(split), config.data.image_list
    if folder is not None:
        return _below(config.root / folder)
    if listed is not None and Path(listed.table).suffix.lower() == ".csv":
        return _listed(config.root, listed, split)
    return _below(config.root, Path(config.results))


def _listed(root: Path, listed: ImageList, split: Split) -> Iterator[tuple[str, int]]:
    """The files that a CSV names for the split."""
    try:
        with (root / listed.table).open(encoding="utf-8-sig", newline="") as file:
            for row in csv.DictReader(file):
                path = row.get(listed.path) or ""
                if (listed.split is None or row.get(listed.split) == split) and not relative_fault(path):
                    yield path, _size(root / path)
    except (OSError, UnicodeDecodeError, csv.Error):
        return


def _below(folder: Path, without: Path | None = None) -> Iterator[tuple[str, int]]:
    try:
        left_out = without.resolve().relative_to(folder.resolve()).as_posix() + "/" if without else None
    except ValueError:
        left_out = None
    try:
        for path, size in files_below(folder):
            if left_out is None or not path.startswith(left_out):
                yield path, size
    except OSError:
        return


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return -1
