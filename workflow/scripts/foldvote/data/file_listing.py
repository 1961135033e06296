"""A digest of the image files of a split, cheap enough for every start of the workflow.

It covers names and sizes: an added, removed or replaced image reruns the manifest, a new time stamp does not.
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

    Faults of the files are ignored here; the manifest stage reports them. For data that the workflow draws itself the
    digest is a constant, because Snakemake already tracks these files as outputs.

    Args:
        config: the configuration of the data.
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
    """Paths and sizes of the files that a CSV lists for the split; size -1 if a file is missing."""
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
