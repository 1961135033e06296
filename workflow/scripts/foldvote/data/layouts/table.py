"""From a data folder to its entries: one row an image, with who is on it and what class it is.

Knows the three shapes of data folders; opens no image. Every fault of a table is told at once, with row numbers
that count the header as row 1.
"""

import re
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
import pyarrow as pa

from foldvote.config.data import DataSettings, FoldersLayout, Layout, MaskbaseLayout, TableLayout
from foldvote.data.file_listing import Split
from foldvote.data.label_corrections import apply_corrections
from foldvote.data.label_space import LabelSpace, layout_label_space
from foldvote.data.layouts.folders import folder_entries
from foldvote.data.layouts.maskbase import maskbase_test, maskbase_train
from foldvote.data.manifest_table import manifest_schema
from foldvote.errors import UserError, did_you_mean, raise_all
from foldvote.io.csv_files import read_user_table
from foldvote.io.paths import relative_fault, tidy

_FRACTION = re.compile(r"[-+]?\d*\.\d+")


class Entries(NamedTuple):
    """The images of one split.

    Attributes:
        frame: a row an image: image_id, path (relative to the data folder, with /), profile, group, a column a
            factor, raw columns (person_id, age_years at home), label (int16, -1 where unknown), class_name, corrected.
        scheme: the classes.
        corrections: what was applied and what was skipped, for the provenance record.
    """

    frame: pd.DataFrame
    scheme: LabelSpace
    corrections: dict[str, Any]


def entries(config: DataSettings, split: Split) -> Entries:
    """Find the images of a split, apply the corrections and label them.

    Args:
        config: the configuration.
        split: `train` or `test`; every label of `test` is -1.

    Raises:
        UserError: every fault of the folder, the table or the corrections, with file and row.
    """
    if not config.root.is_dir():
        raise UserError(f"data_root: {config.root} is no folder; set data_root to the folder of the data")
    if split == "test" and not config.has_test:
        raise UserError("data: names no test images, so there is no test split; name them or ask for train only")
    layout = config.data
    factors = factor_names(layout)
    frame, found = _read(config.root, layout, split)
    if split == "train":
        frame, summary = apply_corrections(frame, config)
        if not factors:
            found = set(frame["class_name"]) | (found if isinstance(layout, FoldersLayout) else set())
    else:
        summary = {}
        frame = frame.assign(corrected=False)
    scheme = layout_label_space(layout, found)
    frame = _labelled(frame, scheme, split)
    return Entries(frame.reset_index(drop=True), scheme, summary)


def factor_names(layout: Layout) -> list[str]:
    """The factors that make up the class, in order; none where classes are plain names."""
    if isinstance(layout, MaskbaseLayout):
        return ["mask", "gender", "age"]
    return list(layout.factors) if isinstance(layout, TableLayout) else []


def raw_columns(layout: Layout) -> list[tuple[str, pa.DataType]]:
    """The manifest's extra columns of a layout."""
    return [("person_id", pa.string()), ("age_years", pa.int16())] if isinstance(layout, MaskbaseLayout) else []


def _read(root: Path, layout: Layout, split: Split) -> tuple[pd.DataFrame, set[str]]:
    """The split's rows, and the class names of the training rows where the layout does not name them."""
    if isinstance(layout, MaskbaseLayout):
        return (maskbase_train(root, layout) if split == "train" else maskbase_test(root, layout)), set()
    if isinstance(layout, TableLayout):
        return _table_entries(root, layout, split)
    assert isinstance(layout, FoldersLayout)
    return folder_entries(root, layout, split)


def _table_entries(root: Path, layout: TableLayout, split: Split) -> tuple[pd.DataFrame, set[str]]:
    path = root / layout.table
    taken = set(manifest_schema([]).names) & set(layout.factors)
    raise_all(
        f"data.factors.{name}: the manifest has a column of that name; rename the factor" for name in sorted(taken)
    )
    named = [layout.path, layout.id, layout.group, layout.label, *layout.factors, layout.split]
    table = read_user_table(path, list(dict.fromkeys(name for name in named if name is not None)))
    numbers = pd.Series(range(2, len(table) + 2))
    if layout.split is not None:
        wrong = ~table[layout.split].isin(["train", "test"])
        raise_all(
            f"{path}, row {row}: {layout.split} is {text!r}; write train or test"
            for row, text in zip(numbers[wrong], table.loc[wrong, layout.split], strict=True)
        )
        training = table[layout.split] == "train"
    else:
        training = pd.Series(True, index=table.index)
    ids = table[layout.id or layout.path]
    faults = _path_faults(path, table[layout.path], root)
    faults += _doubled(path, layout.path, table[layout.path].map(tidy))
    faults += _doubled(path, layout.id, ids) if layout.id else []
    faults += [f"{path}, row {row}: {layout.id} is empty; name the image" for row in numbers[ids == ""]]
    faults += _level_faults(path, layout, table[training], numbers[training])
    raise_all(faults)
    found = set(table.loc[training, layout.label]) if layout.label else set()
    rows = table[training if split == "train" else ~training]
    if rows.empty:
        raise UserError(f"{path}: holds no {split} rows; correct the column {layout.split}")
    group = rows[layout.group].where(rows[layout.group] != "", None)
    frame = pd.DataFrame(
        {
            "image_id": rows[layout.id] if layout.id else rows[layout.path],
            "path": rows[layout.path].map(tidy),
            "profile": group,
            "group": group,
        }
    )
    for name in layout.factors:
        frame[name] = rows[name] if split == "train" else None
    if layout.label:
        frame["class_name"] = rows[layout.label] if split == "train" else None
    return frame, found


def _path_faults(table: Path, paths: pd.Series, root: Path) -> list[str]:
    faults = []
    for row, text in enumerate(paths, start=2):
        fault = relative_fault(text)
        if fault:
            faults.append(f"{table}, row {row}: the path {text!r} {fault}")
        elif not (root / text).is_symlink() and not (root / text).exists():
            hint = "; write / between folders" if "\\" in text else ""
            faults.append(
                f"{table}, row {row}: there is no file {text!r} in {root}{hint or '; add it or remove the row'}"
            )
    return faults


def _doubled(table: Path, column: str, texts: pd.Series) -> list[str]:
    """Lines for texts that stand twice, with both rows."""
    first: dict[str, int] = {}
    return [
        f"{table}, row {row}: {column} {text!r} stands in row {first[text]} already; keep one"
        for row, text in enumerate(texts, start=2)
        if first.setdefault(text, row) != row
    ]


def _level_faults(path: Path, layout: TableLayout, rows: pd.DataFrame, numbers: pd.Series) -> list[str]:
    """Lines for training rows without a group or with an unknown label or level."""
    faults = [
        f"{path}, row {row}: {layout.group} is empty; a training image needs its group"
        for row in numbers[rows[layout.group] == ""]
    ]
    known: dict[str, list[str] | None] = dict(layout.factors) if layout.factors else {str(layout.label): layout.classes}
    for column, names in known.items():
        for row, text in zip(numbers, rows[column], strict=True):
            if names is not None and text not in names:
                shown = ", ".join(names[:20])
                guess = did_you_mean(text, names) or f"; use one of {shown}"
                faults.append(f"{path}, row {row}: {column} {text!r} is not known{guess}")
            elif not text:
                faults.append(f"{path}, row {row}: {column} is empty; a training image needs its class")
            elif names is None and _FRACTION.fullmatch(text):
                faults.append(
                    f"{path}, row {row}: {column} {text!r} is a fraction, which no class is; "
                    "write a name or a whole number, or list it in data.classes"
                )
    return faults


def _labelled(frame: pd.DataFrame, scheme: LabelSpace, split: Split) -> pd.DataFrame:
    """Add label and class_name, from the factors or from the class name."""
    if split == "test":
        return frame.assign(label=pd.Series(-1, index=frame.index, dtype="int16"), class_name=None)
    if scheme.factors:
        levels = frame[list(scheme.factors)].to_dict("records")
        codes = [scheme.code(row) for row in levels]
    else:
        known = {name: code for code, name in enumerate(scheme.classes)}
        codes = [known[name] for name in frame["class_name"]]
    names = [scheme.classes[code] for code in codes]
    return frame.assign(label=pd.Series(codes, index=frame.index, dtype="int16"), class_name=names)
