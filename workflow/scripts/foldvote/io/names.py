"""Names as a reader sees them: the plain spelling, names that look alike, and files that the disk spells otherwise.

Tables are typed by people and files are copied between systems, so one name comes in several spellings: with a space
behind it, with a no-break space, or with an accent as a letter of its own (NFD, as macOS writes file names).
"""

import os
import re
import unicodedata
from collections.abc import Iterable, Sequence
from pathlib import Path, PurePosixPath

_UNSEEN = "\u00ad\u200b-\u200f\u202a-\u202e\u2060-\u2064\ufeff"  # zero-width characters and marks of direction
_OUTER = re.compile(rf"\A[\s{_UNSEEN}]+|[\s{_UNSEEN}]+\Z")
_UNSEEN_ANYWHERE = re.compile(f"[{_UNSEEN}]")
_MARKS = str.maketrans(
    "\u2010\u2011\u2012\u2013\u2014\u2015\u2212\u2018\u2019\u02bc", "-" * 7 + "'" * 3
)  # dashes, quotes
_CYRILLIC = str.maketrans("авекмнорстухіјѕ", "abekmhopctyxijs")  # of lower case, as case is folded first


def plain_name(text: str) -> str:
    """The spelling under which foldvote knows a name: Unicode form NFC, without white space or unseen marks around it.

    What stands inside the name, and upper and lower case, stay: `p01`, `P01` and `p 01` are three names.
    """
    return text.strip() if text.isascii() else _OUTER.sub("", unicodedata.normalize("NFC", text))


def look(text: str, *, case: bool = False) -> str:
    """A text that is equal for names that a reader takes for one.

    Spaces of any kind and number count as one space, unseen marks do not count, dashes are one dash, and full-width,
    half-width and other compatibility forms are the common ones.

    Args:
        text: a name.
        case: whether upper and lower case differ. If not, Cyrillic letters that look like Latin ones are these as well.
    """
    if not text.isascii():
        text = _UNSEEN_ANYWHERE.sub("", unicodedata.normalize("NFKC", text)).translate(_MARKS)
    text = " ".join(text.split())
    return text if case else text.casefold().translate(_CYRILLIC)


def alike(names: Iterable[str], *, case: bool = False) -> list[list[str]]:
    """The sets of different names that look the same, as `look` compares them; sorted, as are their names."""
    of_look: dict[str, set[str]] = {}
    for name in set(names):
        of_look.setdefault(look(name, case=case), set()).add(name)
    return sorted(sorted(found) for found in of_look.values() if len(found) > 1)


def spelled(name: str) -> str:
    """A name in quotes for a message, with codes for the letters that look like others: `'p01\\xa0'`."""
    common = look(name, case=True) == name and name.casefold().translate(_CYRILLIC) == name.casefold()
    return repr(name) if common else ascii(name)


def paths_on_disk(root: Path, paths: Sequence[str]) -> list[str]:
    """Paths below a folder as the disk spells them.

    A path that is not there is looked up by the plain spelling of its parts.

    Args:
        root: the folder.
        paths: relative paths with /.

    Returns:
        One path for each; those that are not found, or found twice, stay as they are.
    """
    listings: dict[Path, dict[str, list[str]]] = {}
    return [path if os.path.lexists(root / path) else _looked_up(root, path, listings) for path in paths]


def _looked_up(root: Path, path: str, listings: dict[Path, dict[str, list[str]]]) -> str:
    parts: list[str] = []
    for part in PurePosixPath(path).parts:
        folder = root.joinpath(*parts)
        if folder not in listings:
            listings[folder] = _listing(folder)
        names = listings[folder].get(plain_name(part), [])
        if part not in names and len(names) != 1:
            return path
        parts.append(part if part in names else names[0])
    return "/".join(parts)


def _listing(folder: Path) -> dict[str, list[str]]:
    """The names in a folder by their plain spelling; none if it cannot be read."""
    try:
        names = os.listdir(folder)  # noqa: PTH208 - names are all it needs
    except OSError:
        return {}
    found: dict[str, list[str]] = {}
    for name in names:
        found.setdefault(plain_name(name), []).append(name)
    return found
