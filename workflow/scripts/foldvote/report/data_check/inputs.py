"""The inputs of the data check, read from the outputs of the data stages and checked against each other."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from foldvote.config.layout_facts import NumericFactor
from foldvote.data.image_statistics import IMAGE_STATISTICS
from foldvote.data.label_space import LabelSpace, read_label_space
from foldvote.data.manifest_table import QUARANTINE
from foldvote.errors import UserError
from foldvote.io.files import read_json
from foldvote.io.parquet import read_record, read_table
from foldvote.splits.folds import read_folds


@dataclass(frozen=True)
class DataCheckFiles:
    """The outputs of the data stages; dictionaries are by split. Without test images: only `train`, no overlap.

    Attributes:
        manifests: the manifests.
        quarantines: the images that were left out.
        light: the tables of image_statistics.
        folds: the split.
        certificate: its certificate.
        classes: the class list.
        overlap: images that are in train and in test.
        leaks: what other splits would score, where a pretrained net is configured.
    """

    manifests: Mapping[str, Path]
    quarantines: Mapping[str, Path]
    light: Mapping[str, Path]
    folds: Path
    certificate: Path
    classes: Path
    overlap: Path | None
    leaks: Path | None = None


@dataclass(frozen=True)
class DataCheckInputs:
    """The inputs as tables; dictionaries are by split.

    Attributes:
        label_space: classes and factors.
        manifests: rows of the manifests.
        quarantines: rows of manifest_table.QUARANTINE.
        light: rows of image_statistics.IMAGE_STATISTICS, in the order of the manifest.
        measured: of the packed images that `light` was measured on: size, roi and, unless it is squash, fit.
        folds: rows of folds.FOLDS.
        certificate: `folds/certificate.json`.
        lookalikes: pairs of equal or similar images, as returned by `lookalikes`.
        overlap: `data/overlap.json`; None without test images.
        corrections: the record of corrections in the training manifest; empty if there are none.
        ignored: number of files that were ignored, by name, for each split that has any.
        numeric: the factor with a number behind it, where there is one.
        spellings: by `group` and `class` the names that stood in several spellings in the data, each with these.
        leaks: `leak_check.json`; None where no pretrained net is configured.
    """

    label_space: LabelSpace
    manifests: dict[str, pd.DataFrame]
    quarantines: dict[str, pd.DataFrame]
    light: dict[str, pd.DataFrame]
    measured: dict[str, str]
    folds: pd.DataFrame
    certificate: dict[str, Any]
    lookalikes: pd.DataFrame
    overlap: dict[str, Any] | None
    corrections: dict[str, Any]
    ignored: dict[str, dict[str, int]]
    numeric: NumericFactor | None
    spellings: dict[str, dict[str, list[str]]] = field(default_factory=dict)
    leaks: dict[str, Any] | None = None

    @property
    def train(self) -> pd.DataFrame:
        """The training manifest."""
        return self.manifests["train"]


def read_data_check_inputs(files: DataCheckFiles, numeric: NumericFactor | None = None) -> DataCheckInputs:
    """Read the inputs and check that they belong together.

    Args:
        files: the outputs of the data stages.
        numeric: the factor with a number behind it, where there is one.

    Raises:
        UserError: if a file is missing or damaged, or belongs to another manifest.
    """
    manifests = {split: read_table(path) for split, path in files.manifests.items()}
    records = {split: read_record(path) for split, path in files.manifests.items()}
    data = {split: record["data_sha256"] for split, record in records.items()}
    light = {}
    for split, path in files.light.items():
        light[split] = read_table(path, IMAGE_STATISTICS, key=("image_id",))
        if read_record(path)["data_sha256"] != data[split]:
            raise UserError(
                f"{path}: was measured on other images than the manifest holds; run your command again with `-R light`"
            )
    folds, _ = read_folds(files.folds, files.certificate)
    certificate = read_json(files.certificate)
    if certificate["data_sha256"] != data["train"]:
        raise UserError(
            f"{files.certificate}: is of other images than the manifest holds; run your command again with `-R folds`"
        )
    overlap = read_json(files.overlap) if files.overlap else None
    leaks = read_json(files.leaks) if files.leaks else None
    if leaks is not None and leaks["data_sha256"] != data["train"]:
        raise UserError(
            f"{files.leaks}: is of other images than the manifest holds; run your command again with `-R leak_check`"
        )
    pairs = lookalikes(manifests["train"], certificate, overlap)
    known = {(split, image_id) for split, rows in manifests.items() for image_id in rows["image_id"]}
    if not {key for side in "ab" for key in zip(pairs[f"{side}_split"], pairs[side], strict=True)} <= known:
        raise UserError(
            f"{files.overlap}: names images that the manifests lack; run your command again with `-R overlap`"
        )
    measured = read_record(files.light["train"])
    return DataCheckInputs(
        label_space=read_label_space(files.classes),
        manifests=manifests,
        quarantines={split: read_table(path, QUARANTINE) for split, path in files.quarantines.items()},
        light=light,
        measured={name: measured[name] for name in ("size", "roi", "fit") if name in measured},
        folds=folds,
        certificate=certificate,
        lookalikes=pairs,
        overlap=overlap,
        corrections=records["train"].get("corrections", {}),
        ignored={split: record["ignored"] for split, record in records.items() if record.get("ignored")},
        numeric=numeric,
        spellings=read_record(files.manifests["train"]).get("spellings", {}),
        leaks=leaks,
    )


COLUMNS = ("kind", "distance", "a", "a_split", "b", "b_split")
CONFLICT = "the same file, two classes"
JOINED = "the same file in two groups, which were merged"
LEAKED = "the same file in train and test"
NEAR = "similar images in two groups"
NEAR_TEST = "similar images in train and test"


def lookalikes(
    manifest: pd.DataFrame, certificate: Mapping[str, Any], overlap: Mapping[str, Any] | None
) -> pd.DataFrame:
    """Pairs of equal or similar images: the most serious kinds first, near-duplicates by their distance.

    Args:
        manifest: the training manifest, with the groups of the data.
        certificate: `folds/certificate.json`, which lists at most 200 near-duplicates.
        overlap: `data/overlap.json`, which lists at most 200 near-duplicates; None without test images.

    Returns:
        Columns kind, distance (of 64 bits; 0 for equal files), a, a_split, b, b_split (image ids). A file that occurs
        n times gives n - 1 pairs, each with its first occurrence.
    """
    rows = [*_same_files(manifest)]
    if overlap is not None:
        training = set(manifest["image_id"])
        for ids in overlap["same_bytes"]:
            first = next((name for name in ids if name in training), ids[0])
            rows += [(LEAKED, 0, first, "train", name, "test") for name in ids if name not in training]
    near = certificate["near_duplicates"]["nearest"]
    rows += [(NEAR, pair["distance"], pair["a"], "train", pair["b"], "train") for pair in near]
    if overlap is not None:
        near = overlap["near_duplicates"]["nearest"]
        rows += [(NEAR_TEST, pair["distance"], pair["a"], "train", pair["b"], "test") for pair in near]
    order = {kind: place for place, kind in enumerate((CONFLICT, LEAKED, JOINED, NEAR, NEAR_TEST))}
    return pd.DataFrame(sorted(rows, key=lambda row: (order[row[0]], row[1])), columns=list(COLUMNS))


def _same_files(manifest: pd.DataFrame) -> list[tuple[str, int, str, str, str, str]]:
    pairs = []
    for _, rows in manifest[manifest["sha256"].duplicated(keep=False)].groupby("sha256", sort=False):
        first, *others = rows.to_dict("records")
        for other in others:
            if other["label"] != first["label"]:
                pairs.append((CONFLICT, 0, first["image_id"], "train", other["image_id"], "train"))
            elif other["group"] != first["group"]:
                pairs.append((JOINED, 0, first["image_id"], "train", other["image_id"], "train"))
    return pairs
