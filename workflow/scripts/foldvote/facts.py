"""All that the data stages know, read together: what a data check judges and shows."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from foldvote.errors import Refusal
from foldvote.files import read_json
from foldvote.folds import read_folds
from foldvote.labels import Scheme, read_scheme
from foldvote.light import LIGHT
from foldvote.lookalikes import lookalikes
from foldvote.tables import QUARANTINE, read_record, read_table


@dataclass(frozen=True)
class FactFiles:
    """Where the facts lie; dictionaries are by split. Without test images there is `train` only, and no overlap."""

    manifests: Mapping[str, Path]
    quarantines: Mapping[str, Path]
    light: Mapping[str, Path]
    folds: Path
    certificate: Path
    classes: Path
    overlap: Path | None


@dataclass(frozen=True)
class Facts:
    """The facts as tables.

    Attributes:
        scheme: classes and factors.
        manifests: rows of the manifest, by split.
        quarantines: rows of tables.QUARANTINE, by split.
        light: rows of light.LIGHT, by split; each in the order of its own manifest.
        measured: size and region of the pixels that `light` was measured on.
        folds: rows of tables.FOLDS.
        certificate: `folds/certificate.json`.
        alike: the pairs of lookalikes.lookalikes.
        corrections: the training manifest's record of corrections; empty where there are none.
        age_borders: years at which an age band begins; empty where the data has no ages in years.
    """

    scheme: Scheme
    manifests: dict[str, pd.DataFrame]
    quarantines: dict[str, pd.DataFrame]
    light: dict[str, pd.DataFrame]
    measured: dict[str, str]
    folds: pd.DataFrame
    certificate: dict[str, Any]
    alike: pd.DataFrame
    overlap: dict[str, Any] | None
    corrections: dict[str, Any]
    age_borders: tuple[int, ...]

    @property
    def train(self) -> pd.DataFrame:
        """The training manifest."""
        return self.manifests["train"]


def read_facts(files: FactFiles, age_borders: tuple[int, ...] = ()) -> Facts:
    """Read and check everything.

    Args:
        files: where it lies.
        age_borders: of the configuration.

    Raises:
        Refusal: if a file is missing or damaged, or was made from another manifest.
    """
    manifests = {split: read_table(path) for split, path in files.manifests.items()}
    data = {split: read_record(path)["data_sha256"] for split, path in files.manifests.items()}
    light = {}
    for split, path in files.light.items():
        light[split] = read_table(path, LIGHT, key=("image_id",))
        if read_record(path)["data_sha256"] != data[split]:
            raise Refusal(f"{path}: was measured on other images than the manifest holds; run `snakemake -R light`")
    folds, _ = read_folds(files.folds, files.certificate)
    certificate = read_json(files.certificate)
    if certificate["data_sha256"] != data["train"]:
        raise Refusal(f"{files.certificate}: is of other images than the manifest holds; run `snakemake -R folds`")
    overlap = read_json(files.overlap) if files.overlap else None
    alike = lookalikes(manifests["train"], certificate, overlap)
    known = {(split, image_id) for split, rows in manifests.items() for image_id in rows["image_id"]}
    if not {key for side in "ab" for key in zip(alike[f"{side}_split"], alike[side], strict=True)} <= known:
        raise Refusal(f"{files.overlap}: names images that the manifests lack; run `snakemake -R overlap`")
    return Facts(
        scheme=read_scheme(files.classes),
        manifests=manifests,
        quarantines={split: read_table(path, QUARANTINE) for split, path in files.quarantines.items()},
        light=light,
        measured={name: str(read_record(files.light["train"])[name]) for name in ("size", "roi")},
        folds=folds,
        certificate=certificate,
        alike=alike,
        overlap=overlap,
        corrections=read_record(files.manifests["train"]).get("corrections", {}),
        age_borders=age_borders,
    )
