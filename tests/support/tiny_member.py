"""A tiny finished data stage: drawn images, a manifest, folds, pixels and one recipe. For tests of what comes after."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np
import pandas as pd
import pyarrow as pa

from foldvote.config.data import Images
from foldvote.config.folds import Folds
from foldvote.config.recipe import Recipe
from foldvote.data.label_space import LabelSpace
from foldvote.data.manifest_table import ONLY, WEIGHT, manifest_schema
from foldvote.data.metadata import PREFIX, metadata_columns
from foldvote.data.packed_images import pack_images
from foldvote.io.files import sha256_bytes, sha256_lines
from foldvote.io.parquet import read_table, write_table
from foldvote.runtime.seeding import generator
from foldvote.splits.folds import make_folds

if TYPE_CHECKING:  # both import torch, which the tests of light stages must not
    from foldvote.splits.folds import SplitFiles
    from foldvote.training.train_member import MemberFiles

LABEL_SPACE = LabelSpace(("blue", "green", "red"))
SIZE = "32x24"


@dataclass(frozen=True)
class Tiny:
    """Where everything lies below one folder."""

    root: Path

    @property
    def manifest(self) -> Path:
        return self.root / "manifest.parquet"

    @property
    def pixels(self) -> Path:
        return self.root / "train.arrow"

    @property
    def split(self) -> "SplitFiles":
        from foldvote.splits.folds import SplitFiles

        return SplitFiles(self.root / "classes.json", self.root / "folds.parquet", self.root / "certificate.json")

    @property
    def taught(self) -> Path:
        return self.root / "teach/model=tiny/fold=0/predictions.parquet"

    @property
    def resume(self) -> Path:
        return self.root / "resume"

    def files(self, name: str = "member") -> "MemberFiles":
        from foldvote.training.train_member import MemberFiles

        folder = self.root / name
        return MemberFiles(
            folder / "model.safetensors",
            folder / "last.safetensors",
            folder / "model.json",
            folder / "history.parquet",
            folder / "timing.json",
        )


def recipe(**changes: object) -> Recipe:
    """Two quick epochs of a tiny net."""
    return Recipe.model_validate(
        {
            "net": "test_resnet",
            "size": SIZE,
            "epochs": 2,
            "batch_size": 8,
            "warmup_epochs": 0.5,
            "drop_rate": 0.1,
            "epoch": "best",  # the longer way: best epochs are kept in the checkpoints
            **changes,
        }
    )


def make_tiny(
    root: Path, persons: int = 12, k: int = 3, told: Sequence[int] | None = None, by_class: bool = False
) -> Tiny:
    """Draw `persons` x 4 images of three classes and split them into `k` folds; `told` replaces labels of persons.

    With `by_class`, the ids of a class follow one another.
    """
    tiny = Tiny(root)
    labels = [person * 3 // persons if by_class else person % 3 for person in range(persons)]
    rows = [
        _draw(root, person, shot, label, (told or labels)[person])
        for person, label in enumerate(labels)
        for shot in range(4)
    ]
    manifest = pd.DataFrame(rows)
    write_manifest(manifest, tiny.manifest)
    make_folds(tiny.manifest, Folds(k=k), 7, tiny.split.folds, tiny.split.certificate, tiny.split.classes)
    pack_images(tiny.manifest, root, Images(min_side=8), SIZE, "none", tiny.pixels, workers=1)
    return tiny


def make_tiny_with_tests(root: Path) -> Tiny:
    """A tiny data stage with eight test images: test.parquet and test.arrow."""
    made = make_tiny(root)
    tests = read_table(made.manifest).head(8).assign(label=np.int16(-1), class_name=None)
    tests["image_id"] = [f"test{number}" for number in range(len(tests))]
    write_manifest(tests, root / "test.parquet")
    pack_images(root / "test.parquet", root, Images(min_side=8), SIZE, "none", root / "test.arrow", workers=1)
    return made


def write_manifest(manifest: pd.DataFrame, path: Path, label_space: LabelSpace = LABEL_SPACE) -> None:
    """Write rows as a manifest with its record; train_only, sample_weight and metadata are columns where they are."""
    columns = ("image_id", "path", "label", "group", "sha256")
    lines = ("\t".join(map(str, values)) for values in zip(*(manifest[name] for name in columns), strict=True))
    record = {"data_sha256": sha256_lines(lines), "scheme": label_space.as_json()}
    raw = [(name, kind) for name, kind in ((ONLY, pa.bool_()), (WEIGHT, pa.float64())) if name in manifest]
    beside = {name: manifest[name].dtype.kind for name in manifest if name.startswith(PREFIX)}
    raw += metadata_columns({n.removeprefix(PREFIX): "number" if k == "f" else "category" for n, k in beside.items()})
    write_table(manifest, path, manifest_schema(label_space.factors, raw), key=("image_id",), record=record)


def with_metadata(manifest: pd.DataFrame) -> pd.DataFrame:
    """Rows with an age, some of them missing, and a site, which is the class in another spelling."""
    ages = np.where(np.arange(len(manifest)) % 5 == 0, np.nan, 20.0 + np.arange(len(manifest)))
    return manifest.assign(meta_age=ages, meta_site=[f"site of {name}" for name in manifest["class_name"]])


def manifest_row(image_id: str, group: str, label: int, sha256: str, **more: object) -> dict[str, object]:
    """One row of a manifest without factors."""
    row = {"image_id": image_id, "path": image_id, "profile": group, "group": group, "label": label}
    row |= {"class_name": LABEL_SPACE.classes[label], "width": 32, "height": 40, "format": "PNG", "bytes": 1}
    return row | {"sha256": sha256, "phash": "0" * 16, "corrected": False, "flags": ""} | more


def _draw(root: Path, person: int, shot: int, label: int, told: int) -> dict[str, object]:
    draw = generator(1, person, shot)
    image = draw.integers(0, 120, size=(40, 32, 3), dtype=np.uint8)
    image[..., label] += 90
    image[: 4 + person] //= 2
    image_id = f"person{person:02d}/{shot}.png"
    path = root / image_id
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), image)
    digest = sha256_bytes(path.read_bytes())
    return manifest_row(image_id, f"person{person:02d}", told, digest, phash=f"{draw.integers(2**63):016x}")
