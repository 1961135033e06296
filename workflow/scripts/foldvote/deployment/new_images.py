"""The images that a user wants predicted: those below a folder, or those that a table names."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from foldvote.config.data import Layout
from foldvote.config.metadata import MetadataKind
from foldvote.data.file_listing import new_files, new_table
from foldvote.data.metadata import metadata_of_rows
from foldvote.errors import UserError, raise_all
from foldvote.io.csv_files import read_user_table
from foldvote.io.names import paths_on_disk, plain_name, spelled
from foldvote.io.paths import relative_fault, tidy


@dataclass(frozen=True)
class NewImages:
    """Images to predict, in their order; none of them has been opened.

    Attributes:
        source: the folder or table, for messages.
        root: the folder below which they lie.
        ids: their names, each once.
        paths: of each, below `root`.
    """

    source: Path
    root: Path
    ids: Sequence[str]
    paths: Sequence[str]


def list_new_images(new: Path, layout: Layout, results: Path) -> NewImages:
    """List the images that `new` names.

    Args:
        new: a folder, of which every image at any depth is taken, sorted by path, under its path; or a table, of which
            every row is, in its order.
        layout: the section `data` of the configuration, whose columns a table has.
        results: the folder of what the workflow makes, which may lie in the folder.

    Raises:
        UserError: if there are none, the folder cannot be read, or for every fault of the table. A file that is missing
            or bad is no fault here.
    """
    return _of_folder(new, results) if new.is_dir() else _of_table(new, layout)


def metadata_beside(listed: NewImages, columns: Mapping[str, MetadataKind]) -> pd.DataFrame | None:
    """The metadata of the images, one row per image in their order; None if none is wanted.

    Args:
        listed: the images.
        columns: names and kinds of what the ensemble sees.

    Raises:
        UserError: if they lie in a folder, which tells none, the table lacks a column, or a cell is no number.
    """
    if not columns:
        return None
    if listed.source == listed.root:
        raise UserError(
            f"new: {listed.source} is a folder, and the ensemble sees {', '.join(columns)} beside an image; name a "
            "table of the images with these columns, with empty cells where one is unknown"
        )
    return metadata_of_rows(listed.source, columns, read_user_table(listed.source))


def shown(text: str) -> str:
    """A name as a table can hold it: what is not UTF-8 as backslash codes."""
    return text.encode(errors="backslashreplace").decode()


def _of_folder(folder: Path, results: Path) -> NewImages:
    try:
        paths = sorted(path for path, _ in new_files(folder, results))
    except OSError as error:
        raise UserError(f"new: {error.filename or folder}: cannot be read ({error.strerror}); correct it") from None
    if not paths:
        raise UserError(f"new: {folder} holds no images; name the folder that does, or a table")
    ids = [plain_name(shown(path)) for path in paths]
    raise_all(_doubled(str(folder), ids, paths))
    return NewImages(folder, folder, ids, paths)


def _of_table(path: Path, layout: Layout) -> NewImages:
    root, of_path, of_id = new_table(layout, path)
    table = read_user_table(path, list(dict.fromkeys([of_path, of_id])), exact=True)
    written = table[of_path].tolist()
    ids = [plain_name(name) for name in table[of_id]]
    faults = [f"{path}, row {row}: {of_id} is empty; name the image" for row, name in enumerate(ids, 2) if not name]
    raise_all([*faults, *_doubled(str(path), ids, written)])
    paths = paths_on_disk(root, [text if relative_fault(text) else tidy(text) for text in written])
    return NewImages(path, root, ids, paths)


def _doubled(where: str, ids: Sequence[str], paths: Sequence[str]) -> list[str]:
    """A line for each image whose name another one has already."""
    first: dict[str, int] = {}
    return [
        f"{where}: the image id {spelled(name)} is that of {paths[first[name]]!r} and of {paths[row]!r}; rename one"
        for row, name in enumerate(ids)
        if name and first.setdefault(name, row) != row
    ]
