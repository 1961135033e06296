"""The entries of a data folder: one row per image with its path, person and class. No image is opened."""

from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from foldvote.config.external import AllData
from foldvote.data.external_data import with_external
from foldvote.data.file_listing import Split
from foldvote.data.label_corrections import apply_corrections
from foldvote.data.label_space import LabelSpace
from foldvote.data.layouts.registry import layout_of
from foldvote.data.name_spelling import Spellings, class_faults, plain_entries
from foldvote.errors import UserError, raise_all
from foldvote.io.names import plain_name


class Entries(NamedTuple):
    """The images of one split.

    Attributes:
        frame: one row per image: image_id, path (relative to the data folder, with /; of external data see
            `image_folders`), profile, group, one column per factor, the layout's raw columns, label (int16, -1 where
            unknown), class_name, corrected.
        label_space: the classes.
        corrections: the corrections that were applied and skipped, for the provenance record.
        spellings: by `group` and `class` the names that stood in several spellings, each with these.
    """

    frame: pd.DataFrame
    label_space: LabelSpace
    corrections: dict[str, Any]
    spellings: Spellings


def entries(config: AllData, split: Split) -> Entries:
    """Find the images of a split, apply the corrections and label them; to those of train add external data.

    Args:
        config: the configuration of the data.
        split: `train` or `test`; every label of `test` is -1.

    Raises:
        UserError: for every fault of the folder, the table or the corrections, with file and row; and for groups or
            classes whose names look the same.
    """
    if not config.root.is_dir():
        raise UserError(f"data_root: {config.root} is no folder; set data_root to the folder of the data")
    if split == "test" and not config.has_test:
        raise UserError("data: names no test images, so there is no test split; name them or ask for train only")
    layout = layout_of(config.data)
    frame, found = layout.entries(config.root, split, Path(config.results))
    frame, spellings = plain_entries(frame, config, split)
    found = set(map(plain_name, found))
    if split == "train":
        of_rows = set(frame["class_name"]) if "class_name" in frame else set()
        frame, summary = apply_corrections(frame, config, found | of_rows)
        if not config.data.factor_names:
            found = found | set(frame["class_name"])
            raise_all(class_faults(found, config))
    else:
        summary = {}
        frame = frame.assign(corrected=False)
    label_space = layout.label_space(found)
    frame = _labelled(frame, label_space, split).reset_index(drop=True)
    if split == "train" and config.external:
        frame = with_external(frame, label_space, config)
    return Entries(frame, label_space, summary, spellings)


def _labelled(frame: pd.DataFrame, label_space: LabelSpace, split: Split) -> pd.DataFrame:
    """Add label and class_name, from the factors or from the class name."""
    if split == "test":
        return frame.assign(label=pd.Series(-1, index=frame.index, dtype="int16"), class_name=None)
    if label_space.factors:
        levels = frame[list(label_space.factors)].to_dict("records")
        codes = [label_space.code(row) for row in levels]
    else:
        known = {name: code for code, name in enumerate(label_space.classes)}
        codes = [known[name] for name in frame["class_name"]]
    names = [label_space.classes[code] for code in codes]
    return frame.assign(label=pd.Series(codes, index=frame.index, dtype="int16"), class_name=names)
