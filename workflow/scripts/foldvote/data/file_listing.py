"""Which files are the images of a split, and a digest of them, cheap enough for every start of the workflow.

The digest covers names and sizes of the files that the manifest reads: an added, removed or replaced image reruns the
manifest; a new time stamp, or a file that no row names, does not.
"""

import csv
import hashlib
import os
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Literal, NamedTuple

from foldvote.config.data import DataSettings, FoldersLayout, Layout, MaskbaseLayout, TableLayout
from foldvote.config.external import AllData
from foldvote.config.layout_facts import ImageList
from foldvote.data.layouts.maskbase_labels import SHOTS
from foldvote.io.names import plain_name
from foldvote.io.paths import files_below, is_ignored, relative_fault

Split = Literal["train", "test"]
FileSize = tuple[str, int]
_IMAGES = {".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff"}
# By their names no images. Anything else in a class folder must be one, so that no damaged image goes unnoticed.
_TEXTS = {".txt", ".md", ".rst", ".html", ".htm", ".pdf", ".doc", ".docx", ".log", ".py", ".ipynb", ".md5", ".sha256"}
_TABLES = {".csv", ".tsv", ".xls", ".xlsx", ".json", ".jsonl", ".xml", ".yaml", ".yml", ".toml", ".ini", ".lock"}
_NOT_IMAGES = _TEXTS | _TABLES | {".safetensors", ".ckpt"}


class FolderFiles(NamedTuple):
    """What lies in the folder of a split of the layout `folders`.

    Attributes:
        files: path below the folder and size in bytes of every file that counts as an image.
        classes: the class folders; none for test images.
        empty: class folders without any image.
        loose: images beside the class folders.
        passed_over: number of files and folders that are no images of this split, by name.
    """

    files: list[FileSize]
    classes: list[str]
    empty: list[str]
    loose: list[str]
    passed_over: Counter[str]


def listing_digest(config: AllData, split: Split) -> str:
    """SHA-256 over the sorted paths and sizes of the image files that belong to a split, external data included.

    Faults of the files are ignored here; the manifest stage reports them. For data that the workflow draws itself the
    digest is a constant, because Snakemake already tracks these files as outputs.

    Args:
        config: the configuration of the data.
        split: `train` or `test`.
    """
    digest = hashlib.sha256()
    files = sorted(_files(config, split)) if config.data.drawn is None else []
    for name, block in config.blocks.items() if split == "train" else ():
        files += [(f"{name}\0{path}", size) for path, size in sorted(_files(block, split))]
    for path, size in files:
        digest.update(f"{path}\0{size}\n".encode(errors="surrogateescape"))
    return digest.hexdigest()


class NewTable(NamedTuple):
    """How a table of new images is read.

    Attributes:
        root: the folder below which its paths lie.
        path: column with the path of an image.
        id: column with its name.
    """

    root: Path
    path: str
    id: str


def new_table(layout: Layout, table: Path) -> NewTable:
    """How a table of new images is read: it has the columns of the layout's table of test images.

    Its paths are relative to its own folder; in the layout `maskbase` to the folder of images beside it, where there is
    one, which lies there as `test_images` does beside `test_table`.
    """
    if isinstance(layout, MaskbaseLayout):
        beside = os.path.dirname(layout.test_table or "eval/info.csv")  # noqa: PTH120 - a text
        images = table.parent / os.path.relpath(layout.test_images, beside or ".")
        return NewTable(images if images.is_dir() else table.parent, "ImageID", "ImageID")
    if isinstance(layout, TableLayout):
        return NewTable(table.parent, layout.path, layout.id or layout.path)
    return NewTable(table.parent, "path", "path")


def new_files(folder: Path, results: Path) -> Iterator[FileSize]:
    """Yield path and size of every file below a folder of new images that counts as one, as among test images.

    Args:
        folder: the folder.
        results: the folder of what the workflow makes, which may lie inside and is left out.

    Raises:
        OSError: if a folder cannot be read.
    """
    top = os.path.realpath(folder)
    strange = [os.path.realpath(one) for one in (results, "resources/weights")]
    without = {os.path.relpath(real, top) for real in strange if _is_inside(real, top)}
    return (found for found in files_below(top, without) if not _is_no_image(found[0], Counter()))


def new_listing_digest(new: str | Path, layout: Layout, results: str | Path) -> str:
    """SHA-256 over the sorted paths and sizes of new images; faults of the files are ignored here.

    Args:
        new: the folder or table of the images.
        layout: the section `data` of the configuration.
        results: the folder of what the workflow makes.
    """
    try:
        new = Path(new)
        if new.is_dir():
            files = sorted(new_files(new, Path(results)))
        else:
            root, path, _ = new_table(layout, new)
            files = sorted(_listed(root, ImageList(os.path.abspath(new), path), "test"))  # noqa: PTH100
    except OSError:
        files = []
    digest = hashlib.sha256()
    for path, size in files:
        digest.update(f"{path}\0{size}\n".encode(errors="surrogateescape"))
    return digest.hexdigest()


def passed_over(config: DataSettings, split: Split) -> dict[str, int]:
    """Number of files and folders in the image folder of a split that are no images of it, by name, most first.

    These are what systems leave behind (`.DS_Store`, `__MACOSX`, ...); in the layout `folders` also tables and texts,
    and the folders of the other split and of the results.
    """
    counts: Counter[str] = Counter()
    folder = config.data.image_folder(split)
    if isinstance(config.data, FoldersLayout):
        counts = folder_files(config.root, config.data, split, Path(config.results)).passed_over
    elif folder is not None and config.data.drawn is None:
        with suppress(OSError):  # of a folder that no row names; those that rows name were read
            for _ in files_below(config.root / folder, ignored=counts):
                pass
    return dict(sorted(counts.items(), key=lambda pair: (-pair[1], pair[0])))


def folder_files(root: Path, layout: FoldersLayout, split: Split, results: Path) -> FolderFiles:
    """List the folder of a split of the layout `folders`.

    Args:
        root: the data folder.
        layout: the section `data` of the configuration.
        split: `train` or `test`.
        results: the folder of what the workflow makes. It may lie inside and holds no data, like the weights that the
            workflow unpacks and the folder of the other split.

    Raises:
        OSError: if a folder cannot be read.
    """
    top = os.path.realpath(root / (layout.train if split == "train" else str(layout.test)))
    other = layout.test if split == "train" else layout.train
    strangers = [results, Path("resources/weights"), *([root / other] if other else [])]
    strange = [real for real in map(os.path.realpath, strangers) if _is_inside(real, top) and Path(real).is_dir()]
    passed: Counter[str] = Counter()
    if split == "test":
        without = {os.path.relpath(real, top) for real in strange}
        passed.update(f"{path}/" for path in without)
        images = [found for found in files_below(top, without, passed) if not _is_no_image(found[0], passed)]
        return FolderFiles(sorted(images), [], [], [], passed)
    files: list[FileSize] = []
    classes: list[str] = []
    empty: list[str] = []
    loose: list[str] = []
    for name in sorted(os.listdir(top)):  # noqa: PTH208 - names are all it needs
        real = os.path.realpath(f"{top}/{name}")
        inside = {os.path.relpath(path, real) for path in strange if _is_inside(path, real)}
        if is_ignored(name):
            passed["._*" if name.startswith("._") else name] += 1
        elif real in strange:
            passed[f"{name}/"] += 1
        elif not Path(real).is_dir():
            if os.path.splitext(name)[1].lower() in _IMAGES:  # noqa: PTH122
                loose.append(name)
            else:
                passed[name] += 1
        else:
            found = [one for one in files_below(real, inside, passed) if not _is_no_image(one[0], passed)]
            passed.update(f"{name}/{path}/" for path in inside)
            files += sorted((f"{name}/{path}", size) for path, size in found)
            if found or not inside:
                (classes if found else empty).append(name)
    return FolderFiles(files, classes, empty, loose, passed)


def folder_faults(root: Path, layout: FoldersLayout, results: Path) -> list[str]:
    """What is wrong with the folders that the layout `folders` names.

    Args:
        root: the data folder.
        layout: the section `data` of the configuration.
        results: the folder of what the workflow makes.
    """
    made = os.path.realpath(results)
    real: dict[str, str] = {}
    faults: list[str] = []
    for key, folder in (("train", layout.train), ("test", layout.test)):
        if folder is None:
            continue
        top = root / folder
        real[key] = os.path.realpath(top)
        if fault := relative_fault(folder):
            faults.append(f"data.{key}: {folder!r} {fault}")
        elif not top.is_dir():
            faults.append(f"{top}: no such folder; {_remedy(root, layout, key, results)}")
        elif real[key] in (made, f"{made}/{key}"):
            faults.append(f"data.{key}: {top} is where the results are written; set another `results`")
    if not faults and real.get("test") == real["train"]:
        faults.append(f"data.test: {root / str(layout.test)} is data.train as well; name the folder of the test images")
    return faults


def _remedy(root: Path, layout: FoldersLayout, key: str, results: Path) -> str:
    """What to do about a folder of the configuration that is not there."""
    if key == "test":
        return "set data.test to the folder of the images to predict, or to null"
    try:
        found = folder_files(root, layout.model_copy(update={"train": "."}), "train", results).classes
    except OSError:
        found = []
    if len(found) > 1:
        named = ", ".join(found[:3]) + (", ..." if len(found) > 3 else "")
        return f"if the folders {named} in {root} are the classes, set data.train: ."
    return "set data.train to the folder that holds one folder per class"


def _is_inside(path: str, folder: str) -> bool:
    return path.startswith(folder.rstrip("/") + "/")


def _is_no_image(path: str, passed: Counter[str]) -> bool:
    """Whether the name says that a file is no image; such a file is counted by its ending."""
    ending = os.path.splitext(path)[1].lower()  # noqa: PTH122 - called for every file
    if ending in _NOT_IMAGES:
        passed[f"*{ending}"] += 1
    return ending in _NOT_IMAGES


def _files(config: DataSettings, split: Split) -> Iterable[FileSize]:
    if split == "test" and not config.has_test:
        return ()
    listed = config.data.image_list(split)
    try:
        if isinstance(config.data, FoldersLayout):
            return folder_files(config.root, config.data, split, Path(config.results)).files
        return list(_listed(config.root, listed, split)) if listed else ()
    except OSError:
        return ()


def _listed(root: Path, listed: ImageList, split: Split) -> Iterator[FileSize]:
    """Paths and sizes of the files that a table lists for the split; size -1 if a file is missing."""
    columns = [listed.path, *([listed.split] if listed.split else [])]
    folder = os.path.join(root, listed.folder)  # noqa: PTH118 - called for every start
    for path, *part in _rows(root / listed.table, columns):
        if (part and plain_name(part[0]) != split) or relative_fault(path):
            continue
        if listed.persons:
            yield from _shots(folder, path)
        else:
            forms = (unicodedata.normalize(form, path) for form in ("NFC", "NFD"))
            spellings = (path, path.strip(), plain_name(path), *forms)
            sizes = (_size(f"{folder}/{spelling}") for spelling in spellings)
            yield path, next((size for size in sizes if size >= 0), -1)


def _rows(table: Path, columns: Sequence[str]) -> Iterator[tuple[str, ...]]:
    """The texts of some columns of a CSV or parquet table, row by row; none if the table has faults.

    As where the table is read for its rows, a column has the plain spelling of its name (see `names.plain_name`).
    """
    if table.suffix.lower() in (".parquet", ".pq"):
        yield from _parquet_rows(table, columns)
        return
    try:
        with table.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file)
            header = [plain_name(name) for name in next(reader, [])]
            places = [header.index(plain_name(name)) for name in columns]
            for row in reader:
                if len(row) > max(places):
                    yield tuple(row[place] for place in places)
    except (ValueError, csv.Error):  # no such column, no UTF-8
        return


def _parquet_rows(table: Path, columns: Sequence[str]) -> Iterator[tuple[str, ...]]:
    """The same of a parquet table. pyarrow takes 0.3 s to import, which only such a table costs."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(table) as file:
            written = {plain_name(name): name for name in file.schema_arrow.names}
            wanted = [written[plain_name(name)] for name in columns]
            for batch in file.iter_batches(columns=wanted):
                values = (batch.column(name).to_pylist() for name in wanted)
                yield from (tuple(map(_text, row)) for row in zip(*values, strict=True))
    except (pa.ArrowException, KeyError):
        return


def _text(value: object) -> str:
    if isinstance(value, bytes):
        return value.decode(errors="replace")
    return "" if value is None else str(value)


def _shots(folder: str, person: str) -> Iterator[FileSize]:
    """The files of a person that bear the name of a shot; the folder itself, with size -1, if it is not there."""
    try:
        with os.scandir(f"{folder}/{person}") as found:
            for entry in found:
                if not is_ignored(entry.name) and os.path.splitext(entry.name)[0] in SHOTS:  # noqa: PTH122
                    yield f"{person}/{entry.name}", _size(entry.path)
    except OSError:
        yield person, -1


def _size(path: str) -> int:
    try:
        return os.stat(path).st_size  # noqa: PTH116 - called for every image
    except OSError:
        return -1
