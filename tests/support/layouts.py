"""Data folders as layouts read them: their faults, and corrections beside them."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from foldvote.config.experiment import Config
from foldvote.data.entries import entries
from foldvote.data.file_listing import Split
from foldvote.errors import UserError
from support.data_folders import config_for, put_csv

TABLE = {"layout": "table", "table": "table.csv"}
FACTORS = {"wear": ["yes", "no"], "sex": ["m", "f"]}
FILES = ["train/dog/p1_a.jpg", "train/cat/deep/er/p2_a.jpg", "train/cat/p1_b.jpg", "test/z.jpg", "test/sub/y y.jpg"]
FOLDERS = {"layout": "folders", "test": "test", "group_pattern": r"(p\d)_"}


def layout_faults(config: Config, split: Split = "train") -> list[str]:
    """The faults that are reported when a split of a data folder is read."""
    with pytest.raises(UserError) as caught:
        entries(config, split)
    return list(caught.value.faults)


def with_corrections(
    root: Path, rows: Sequence[Sequence[str]], data: dict[str, Any] | None = None, **others: Any
) -> Config:
    """A configuration with corrections: rows of id, field, from, to, certainty."""
    put_csv(
        root / "fixes.csv",
        ["id", "field", "from", "to", "source", "certainty"],
        [(*row[:4], "me", row[4]) for row in rows],
    )
    return config_for(root, data, corrections="fixes.csv", **others)
