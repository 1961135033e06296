"""Paths that a configuration or a table contains, files below a folder, and the folders of members."""

import os
import re
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from dataclasses import fields
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar, get_origin, get_type_hints

from foldvote.errors import UserError

T = TypeVar("T")
# What systems leave in folders: Windows, archives made on a Mac, the root of a Linux disk, and network drives.
_LEFTOVERS = {"thumbs.db", "ehthumbs.db", "desktop.ini", "__macosx", "lost+found", "@eadir", "#recycle"}
_LEFTOVERS |= {"@recycle", "$recycle.bin", "system volume information"}
_DRIVE = re.compile(r"[A-Za-z]:[\\/]")


def one_path(text: str) -> str:
    """The one spelling of a user's file, whichever of its many was typed; symlinks stay.

    `~` is the home folder; `.`, `..`, doubled and trailing slashes go; what lies below the working directory is given
    relative to it, anything else from the root. Where `..` follows a symlink, it leads where the operating system would
    go. A URL and a blank text stay as they are.

    Raises:
        ValueError: if nobody here has the home folder `~NAME`.
    """
    if "://" in text or not text.strip():
        return text
    path = _from_home(text)
    cut = re.match(r"(.*/)?\.\.(?=/|$)", path)  # up to the last `..`
    if cut:
        path = os.path.realpath(cut[0]).rstrip("/") + path[cut.end() :] or "/"
    return _from_here(path)


def one_folder(text: str) -> str:
    """The one spelling of a folder: `one_path` with symlinks resolved, so that no folder has two names.

    A folder outside the working directory that a symlink in it leads to (such as `results`, a link to a larger disk) is
    called by the link, because that is what one types as a target.

    Raises:
        ValueError: if nobody here has the home folder `~NAME`.
    """
    path = one_path(text)
    if "://" in path or not path.strip():
        return path
    real = os.path.realpath(path)
    short = _from_here(real)
    if short == real:
        with os.scandir() as here:
            links = sorted(entry.name for entry in here if entry.is_symlink())
        for link in links:
            below = os.path.relpath(real, os.path.realpath(link))
            if below.split("/")[0] != "..":
                return os.path.normpath(f"{link}/{below}")
    return short


def one_data_path(text: str) -> str:
    """The one spelling of a path relative to the data folder; `..` is taken out of the text, and no link is followed.

    Raises:
        ValueError: if nobody here has the home folder `~NAME`.
    """
    return os.path.normpath(_from_home(text)) if text.strip() else text


def _from_home(text: str) -> str:
    path = os.path.expanduser(text)  # noqa: PTH111 - Path.expanduser raises for an unknown name
    if path.startswith("~"):
        name = path.split("/")[0]
        raise ValueError(f"there is no home folder {name}; write ./{name} for a folder of that name (it is {text!r})")
    return re.sub("^/+", "/", path)


def _from_here(path: str) -> str:
    """A path without detours, relative if it lies below the working directory, else absolute."""
    below = os.path.relpath(path)
    return os.path.abspath(path) if below.split("/")[0] == ".." else below  # noqa: PTH100 - it keeps symlinks


def relative_fault(text: str) -> str | None:
    """What is wrong with the text of a path that must lie below the data folder, or None.

    Symlinks are not followed; `real_path_below` does that.
    """
    if not text.strip():
        return "is empty; give a path below the data folder"
    if any(ord(letter) < 32 for letter in text):
        return "holds a control character; remove it"
    try:
        text.encode()
    except UnicodeEncodeError:
        return "is not UTF-8; rename the file"
    if text.startswith("/") or _DRIVE.match(text) or text.startswith("\\\\"):
        return "is absolute; give it relative to the data folder"
    if ".." in re.split(r"[/\\]", text):
        return "holds `..`, which leads out of the data folder; give it without"
    return None


def tidy(text: str) -> str:
    """The normal form of a relative path: `a//./b.jpg` gives `a/b.jpg`."""
    return PurePosixPath(text).as_posix()


def real_path_below(root: str | Path, relative: str) -> Path:
    """The path of a file below the data folder, with all symlinks resolved.

    Args:
        root: the data folder.
        relative: a path below it.

    Raises:
        ValueError: if the path leads out of the folder; the message says why.
        OSError: if the file does not exist, or its symlinks form a loop.
    """
    fault = relative_fault(relative)
    if fault:
        raise ValueError(fault)
    top = os.path.realpath(root, strict=True)
    real = os.path.realpath(os.path.join(top, relative), strict=True)  # noqa: PTH118 - Path.resolve hides loops
    if os.path.commonpath([top, real]) != top:
        raise ValueError("is a symlink out of the data folder; copy the file into it")
    return Path(real)


def is_ignored(name: str) -> bool:
    """Whether a file or folder is not part of the data: hidden (macOS `._*` included), or left behind by a system."""
    return name.startswith(".") or name.casefold() in _LEFTOVERS


def files_below(
    folder: str | Path, without: Collection[str] = (), ignored: Counter[str] | None = None
) -> Iterator[tuple[str, int]]:
    """Yield every file below a folder at any depth as (relative path, size in bytes), in no particular order.

    Files and folders for which `is_ignored` is true are left out. Symlinks to folders are not followed, because they
    may form a loop: they are listed as files. Everything that is not a regular file has size -1.

    Args:
        folder: where to look.
        without: relative paths of folders that are left out.
        ignored: gets the number of files and folders that were ignored, by name; `._*` counts as one name.

    Raises:
        OSError: if a folder cannot be read.
    """
    waiting = [""]
    while waiting:
        below = waiting.pop()
        with os.scandir(Path(folder, below)) as found:
            for entry in found:
                if is_ignored(entry.name):
                    if ignored is not None:
                        ignored["._*" if entry.name.startswith("._") else entry.name] += 1
                elif f"{below}{entry.name}" in without:
                    continue
                elif entry.is_dir(follow_symlinks=False):
                    waiting.append(f"{below}{entry.name}/")
                else:
                    yield f"{below}{entry.name}", _size(entry)


def _size(entry: os.DirEntry[str]) -> int:
    try:
        return entry.stat().st_size if entry.is_file() else -1
    except OSError:
        return -1


MemberKey = tuple[str, int]
_MEMBER_FOLDER = re.compile(r"model=([^/]+)/fold=(\d+)(?:/|\.json$)")


def member_of(path: str | Path) -> MemberKey:
    """Model and fold of a path: `.../model=lite0/fold=3/...` gives ("lite0", 3).

    Raises:
        UserError: if the path has no such folders.
    """
    found = _MEMBER_FOLDER.search(Path(path).as_posix())
    if found is None:
        raise UserError(f"{path}: does not lie in a folder model=<name>/fold=<number>; move it there")
    return found[1], int(found[2])


def named_files(kind: type[T], named: Any, **more: Any) -> T:
    """A dataclass of paths, filled from the files that a rule names like its fields.

    Args:
        kind: the dataclass. A field that is a sequence takes all files of its name; any other one takes the one file,
            or None where the rule has none.
        named: Snakemake's named inputs or outputs. Names that are no fields are left alone.
        more: fields that are given here, as they are no files of the rule.

    Raises:
        TypeError: if a field without a default has neither.
    """
    hints = get_type_hints(kind)
    for field in fields(kind):  # type: ignore[arg-type]
        found = getattr(named, field.name, None)
        if field.name in more or found is None:
            continue
        if get_origin(hints[field.name]) in (list, tuple, Sequence):
            more[field.name] = [Path(path) for path in found]
        else:
            more[field.name] = Path(found) if found else None
    return kind(**more)
