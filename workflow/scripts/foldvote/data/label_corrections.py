"""Label corrections from a CSV of the user's, applied before labels are computed, and never guessed.

A correction says what stands there now (`from`) and what is right (`to`). Where `from` does not match, the file is
for other data or was applied already: that is a fault.
"""

from collections import Counter
from pathlib import Path
from typing import Any

import pandas as pd

from foldvote.config.data import DataSettings, FoldersLayout, MaskbaseLayout, TableLayout
from foldvote.data.label_space import GENDERS, age_band, age_levels
from foldvote.data.layouts.maskbase import SHOTS, age_in_years
from foldvote.errors import did_you_mean, raise_all
from foldvote.io.csv_files import read_csv
from foldvote.io.files import sha256_file

COLUMNS = ("id", "field", "from", "to", "source", "certainty")


class _Fault(Exception):
    """What is wrong with one row, without file and row number."""


def apply_corrections(frame: pd.DataFrame, config: DataSettings) -> tuple[pd.DataFrame, dict[str, Any]]:
    """Apply the rows of `config.corrections` whose certainty is in `config.corrections_certainty`, in their order.

    At home `id` is a person's id, or `path` where the id is not unique, and `field` is gender, age (years, or a band
    such as `<30`, `30to59`, `>=60`, `under30`: a band leaves age_years), shots (the pictures named `from` and `to`
    change places) or race (skipped: no class depends on it). Elsewhere `id` is an image_id or a group, and `field`
    the label column (`label` for folders) or a factor.

    Args:
        frame: the training entries, before labels.
        config: the configuration.

    Returns:
        The entries with a column `corrected`, and a summary: sha256 of the file, the applied rows, and how many rows
        were skipped by reason. Without corrections the summary is empty.

    Raises:
        UserError: every row that names an unknown id or field or does not match the data, with its number.
    """
    frame = frame.reset_index(drop=True).assign(corrected=False)
    path = config.corrections_path
    if path is None:
        return frame, {}
    table = read_csv(path, COLUMNS, empty=True)
    own = _correct_home if isinstance(config.data, MaskbaseLayout) else _correct_other
    applied, skipped, faults = [], Counter(), []
    for number, row in enumerate(table[list(COLUMNS)].to_dict("records"), start=2):
        row = {name: text.strip() for name, text in row.items()}
        if row["certainty"] not in config.corrections_certainty:
            skipped[f"certainty {row['certainty']}"] += 1
            continue
        if row["field"] == "race" and isinstance(config.data, MaskbaseLayout):
            skipped["field race"] += 1
            continue
        try:
            own(frame, row, config)
            applied.append(row)
        except _Fault as fault:
            faults.append(f"{path}, row {number}: id {row['id']!r}: {fault}")
    raise_all(faults)
    return frame, {"sha256": sha256_file(path), "applied": applied, "skipped": dict(skipped)}


def _correct_home(frame: pd.DataFrame, row: dict[str, str], config: DataSettings) -> None:
    layout = config.data
    assert isinstance(layout, MaskbaseLayout)
    person = _person(frame, row["id"])
    if row["field"] == "gender":
        _expect(frame.loc[person, "gender"], row, GENDERS)
        frame.loc[person, "gender"] = row["to"]
    elif row["field"] == "age":
        _correct_age(frame, person, row, layout.age_borders)
    elif row["field"] == "shots":
        person = _swap(frame, person, row)
    else:
        fields = ("gender", "age", "shots", "race")
        raise _Fault(f"no field {row['field']!r}{did_you_mean(row['field'], fields) or f'; use one of {fields}'}")
    frame.loc[person, "corrected"] = True


def _person(frame: pd.DataFrame, name: str) -> pd.Series:
    """Mask of the rows of one person, named by path or by a unique id."""
    by_path = frame["profile"] == name
    if by_path.any():
        return by_path
    by_id = frame["person_id"] == name
    if not by_id.any():
        raise _Fault("no person of the data has this id or path; remove the row")
    profiles = sorted(set(frame.loc[by_id, "profile"]))
    if len(profiles) > 1:
        raise _Fault(f"{len(profiles)} persons have this id; write the path instead: {' or '.join(profiles)}")
    return by_id


def _correct_age(frame: pd.DataFrame, person: pd.Series, row: dict[str, str], borders: tuple[int, int]) -> None:
    now_years, now_band = int(frame.loc[person, "age_years"].iloc[0]), frame.loc[person, "age"].iloc[0]
    before, after = (_age(row[side], borders) for side in ("from", "to"))
    if before not in (now_years, now_band):
        raise _Fault(f"age is {now_years} ({now_band}), not {row['from']!r}; correct the column from")
    if after == before:
        raise _Fault(f"from and to are both {row['to']!r}; remove the row")
    if isinstance(after, int):
        frame.loc[person, "age_years"] = after
    frame.loc[person, "age"] = age_band(after, borders) if isinstance(after, int) else after


def _age(text: str, borders: tuple[int, int]) -> int | str:
    """Years, or the name of a band."""
    low, middle, high = age_levels(borders)
    bands = {low: low, f"<{borders[0]}": low, middle: middle, high: high, f">={borders[1]}": high}
    found = bands.get(text.replace(" ", ""), age_in_years(text))
    if found is None:
        raise _Fault(f"{text!r} is neither an age in years nor one of the bands {', '.join(bands)}; correct it")
    return found


def _swap(frame: pd.DataFrame, person: pd.Series, row: dict[str, str]) -> pd.Series:
    """Let two pictures of one person change places. Returns the mask of the two rows."""
    stems = (row["from"], row["to"])
    for stem in stems:
        if stem not in SHOTS:
            raise _Fault(f"no shot {stem!r}{did_you_mean(stem, list(SHOTS)) or f'; use two of {tuple(SHOTS)}'}")
    names = frame["path"].map(lambda path: Path(path).stem)
    first, second = (person & (names == stem) for stem in stems)
    levels = [frame.loc[place, "mask"].iloc[0] for place in (first, second)]
    if levels[0] == levels[1]:
        raise _Fault(f"{stems[0]} and {stems[1]} are both {levels[0]}, so a swap changes nothing; remove the row")
    frame.loc[first, "mask"], frame.loc[second, "mask"] = levels[1], levels[0]
    return first | second


def _correct_other(frame: pd.DataFrame, row: dict[str, str], config: DataSettings) -> None:
    layout = config.data
    assert isinstance(layout, TableLayout | FoldersLayout)
    factors = layout.factors if isinstance(layout, TableLayout) else {}
    label = (layout.label if isinstance(layout, TableLayout) else None) or "label"
    fields: dict[str, tuple[str, list[str] | None]] = (
        {name: (name, levels) for name, levels in factors.items()}
        if factors
        else {label: ("class_name", layout.classes)}
    )
    if row["field"] not in fields:
        known = list(fields)
        raise _Fault(f"no field {row['field']!r}{did_you_mean(row['field'], known) or f'; use {known}'}")
    column, levels = fields[row["field"]]
    place = frame["image_id"] == row["id"]
    if not place.any():
        place = frame["group"] == row["id"]
    if not place.any():
        raise _Fault("no training image or group of the data has this id; remove the row")
    _expect(frame.loc[place, column], row, levels)
    frame.loc[place, column] = row["to"]
    frame.loc[place, "corrected"] = True


def _expect(present: pd.Series, row: dict[str, str], levels: tuple[str, ...] | list[str] | None) -> None:
    """Refuse a row whose `from` is not what stands there, or whose `to` is no level."""
    others = sorted(set(present) - {row["from"]})
    if others:
        raise _Fault(f"{row['field']} is {' and '.join(others)}, not {row['from']!r}; correct the column from")
    if not row["to"] or (levels is not None and row["to"] not in levels):
        shown = f"; use one of {', '.join(levels[:20])}" if levels else "; write a class name"
        raise _Fault(f"to is {row['to']!r}, which is not known{shown}")
    if row["to"] == row["from"]:
        raise _Fault(f"from and to are both {row['to']!r}; remove the row")
