"""Splits of small manifests: the stage run in a folder, and what it refuses."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from foldvote.config.folds import Folds
from foldvote.data.label_space import LabelSpace
from foldvote.errors import UserError
from foldvote.io.files import read_json
from foldvote.splits.folds import make_folds, read_folds
from support.tiny_member import LABEL_SPACE, manifest_row, write_manifest

Row = dict[str, object]


def persons(labels: Sequence[int], images: int = 3) -> list[Row]:
    """Manifest rows of one person a label, each with that many images."""
    return [
        manifest_row(f"p{person:03d}/{shot}.png", f"p{person:03d}", label, f"{person:03d}-{shot}")
        for person, label in enumerate(labels)
        for shot in range(images)
    ]


class Split:
    """One run of the stage in a folder of its own."""

    def __init__(
        self, folder: Path, rows: list[Row], label_space: LabelSpace = LABEL_SPACE, seed: int = 7, **values: object
    ) -> None:
        self.manifest, self.folds = folder / "manifest.parquet", folder / "folds.parquet"
        self.certificate, self.classes = folder / "certificate.json", folder / "classes.json"
        write_manifest(pd.DataFrame(rows), self.manifest, label_space)
        for path in (self.folds, self.certificate, self.classes):
            path.unlink(missing_ok=True)
        make_folds(self.manifest, Folds(**values), seed, self.folds, self.certificate, self.classes)
        self.table, self.digest = read_folds(self.folds, self.certificate)
        self.proof = read_json(self.certificate)


def faults_of(
    folder: Path, rows: list[Row], label_space: LabelSpace = LABEL_SPACE, **values: object
) -> tuple[str, ...]:
    """The faults that the stage reports; it must not leave any file behind."""
    folder.mkdir(parents=True, exist_ok=True)
    with pytest.raises(UserError) as refused:
        Split(folder, rows, label_space, **values)
    assert not list(folder.glob("folds.parquet")) + list(folder.glob("c*.json"))
    return refused.value.faults


def own(tmp_path: Path, table: pd.DataFrame, name: str = "own.csv") -> str:
    """The path of a table of folds of the user's own."""
    path = tmp_path / name
    table.to_csv(path, index=False) if path.suffix == ".csv" else table.to_parquet(path)
    return str(path)


def by_group(labels: Sequence[int], k: int) -> pd.DataFrame:
    """A fold for each group of `persons`."""
    return pd.DataFrame({"group": [f"p{n:03d}" for n in range(len(labels))], "fold": np.arange(len(labels)) % k})
