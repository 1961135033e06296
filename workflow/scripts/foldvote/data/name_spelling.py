"""One spelling for every name of a split, and names that a reader takes for one, which are refused, joined or kept.

A group that is typed in two ways would be two groups, and so on both sides of a split: a leak that no later check can
see.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path

import pandas as pd

from foldvote.config.data import DataSettings
from foldvote.data.file_listing import Split
from foldvote.errors import MOST_TOLD, raise_all
from foldvote.io.names import alike, plain_name, spelled
from foldvote.runtime.job_log import log

Spellings = dict[str, dict[str, list[str]]]
_NAMES = {"group": "group", "class_name": "class"}


def plain_entries(frame: pd.DataFrame, config: DataSettings, split: Split) -> tuple[pd.DataFrame, Spellings]:
    """Give every name of the entries its plain spelling, and treat groups that look the same as configured.

    Args:
        frame: rows of `DataLayout.entries`.
        config: the configuration of the data.
        split: `train` or `test`; groups of test images are in no fold, and may look the same.

    Returns:
        The rows; and by `group` and `class` the names that stood in several spellings, each with these.

    Raises:
        UserError: for two images whose ids have the same plain spelling, and for groups that look the same, unless
            `similar_groups` says what to do with them.
    """
    where = source(config)
    frame = frame.assign(image_id=frame["image_id"].map(plain_name))
    doubled = frame["image_id"].duplicated(keep=False)
    raise_all(
        f"{where}: the image id {spelled(name)} is that of {' and '.join(map(spelled, rows['path']))}; rename one"
        for name, rows in frame[doubled].groupby("image_id", sort=True)
    )
    spellings: Spellings = {}
    for column, what in _NAMES.items():
        if column not in frame:
            continue
        names: dict[str, str] = {name: plain_name(name) for name in frame[column].dropna().unique()}
        if what == "group" and split == "train":
            same = _same_groups(frame[column].map(names).value_counts(), config, where)
            names = {name: same.get(plain, plain) for name, plain in names.items()}
        _rename(frame, column, names)
        if joined := _several(names):
            spellings[what] = joined
    for what, found in spellings.items():
        for name, several in list(found.items())[:MOST_TOLD]:
            log(f"warning: the {what} {spelled(name)} is written in several ways: {', '.join(map(spelled, several))}")
    return frame, spellings


def class_faults(names: Iterable[str], config: DataSettings) -> list[str]:
    """A line for each set of class names that look the same, where the classes are those found in the data."""
    if not config.data.classes_found:
        return []
    return [
        f"{source(config)}: the classes {' and '.join(map(spelled, same))} look the same; write one of them, by a "
        "correction if need be, or list all classes in data.classes if they are different ones"
        for same in alike(names)
    ]


def source(config: DataSettings) -> Path:
    """What the names were read from, for messages: the table, or else the data folder."""
    return next(iter(config.tables("train")), config.root)


def _same_groups(counts: "pd.Series[int]", config: DataSettings, where: Path) -> dict[str, str]:
    """For groups that look the same the name that they all get: that of most images, of equals the first."""
    if config.data.similar_groups == "keep":
        return {}
    sets = alike(map(str, counts.index))
    if config.data.similar_groups == "refuse":
        raise_all(
            f"{where}: the groups {' and '.join(f'{spelled(name)} ({counts[name]} images)' for name in same)} look the "
            "same; write one name, or set data.similar_groups: join (they are one) or keep (they are several)"
            for same in sets
        )
    return {name: min(same, key=lambda other: (-counts[other], other)) for same in sets for name in same}


def _rename(frame: pd.DataFrame, column: str, names: Mapping[str, str]) -> None:
    """Rename in place. A profile that is the row's group, as in most layouts, is renamed with it."""
    new = frame[column].map(lambda name: names.get(name, name), na_action="ignore")
    if column == "group":
        frame["profile"] = frame["profile"].where(frame["profile"] != frame["group"], new)
    frame[column] = new


def _several(names: Mapping[str, str]) -> dict[str, list[str]]:
    """The new names that several names get, each with these."""
    of_name: dict[str, list[str]] = {}
    for name, new in names.items():
        of_name.setdefault(new, []).append(name)
    return {new: sorted(several) for new, several in sorted(of_name.items()) if len(several) > 1}
