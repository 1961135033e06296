"""A drawn data folder with hostile names and planted findings, and the data stages run on it."""

import shutil
from pathlib import Path

import numpy as np

from foldvote.config.experiment import Config
from foldvote.data.duplicates import report_overlap
from foldvote.data.image_statistics import measure_images
from foldvote.data.manifest import build_manifest
from foldvote.data.packed_images import pack_images
from foldvote.report.data_check.inputs import DataCheckFiles
from foldvote.splits.folds import make_folds
from support.data_folders import encoded, picture, put_csv, table_folder

SCRIPT, QUOTED, KOREAN = "<script>alert(1)</script>", "a\"b'c & <b>d", "마스크 착용"

PERSONS = [f"{name} {number}" for number in range(4) for name in (SCRIPT, QUOTED, KOREAN)]

SHOTS = 3


def data_folder(root: Path) -> Path:
    """Twelve persons of three classes with hostile names, and some of what a data check should find."""
    rows = [
        (
            f"{place}/{KOREAN}\"'<img src=x onerror=alert(2)> {shot}.png",
            person,
            (SCRIPT, QUOTED, KOREAN)[place % 3],
            "train",
        )
        for place, person in enumerate(PERSONS)
        for shot in range(SHOTS)
    ]
    rows += [(f"test/{number}.jpg", "", "", "test") for number in range(4)]
    table_folder(root, rows, ("path", "group", "label", "split"))
    files = [root / path for path, *_ in rows]
    for number, file in enumerate(files[:-4]):
        file.write_bytes(encoded(picture(seed=number), "PNG"))
    shutil.copy(files[0], files[3])  # one file under two persons and two classes
    shutil.copy(files[6], files[6 + 3 * 3])  # one file under two persons of one class
    shutil.copy(files[1], files[-1])  # in train and in test
    files[2].write_bytes(encoded(np.zeros((48, 40, 3), np.uint8), "PNG"))
    files[5].write_bytes(b"not an image <b>")
    put_csv(
        root / "corrections.csv",
        ("id", "field", "from", "to", "source", "certainty"),
        [
            (PERSONS[4], "label", QUOTED, KOREAN, "<i>me</i>", "certain"),
            (PERSONS[5], "label", KOREAN, SCRIPT, "", "maybe"),
        ],
    )
    return root


def prepared(config: Config, folder: Path, k: int = 3) -> DataCheckFiles:
    """Run the data stages."""
    splits = ("train", "test") if config.has_test else ("train",)
    manifests = {split: folder / f"{split}.parquet" for split in splits}
    quarantines = {split: folder / f"left out of {split}.parquet" for split in splits}
    light = {split: folder / f"light of {split}.parquet" for split in splits}
    files = DataCheckFiles(
        manifests=manifests,
        quarantines=quarantines,
        light=light,
        folds=folder / "folds.parquet",
        certificate=folder / "certificate.json",
        classes=folder / "classes.json",
        overlap=folder / "overlap.json" if config.has_test else None,
    )
    for split in splits:
        build_manifest(config, split, manifests[split], quarantines[split])
        packed = folder / f"{split}.arrow"
        pack_images(manifests[split], config.root, config.images, "16x12", "none", packed, workers=1)
        measure_images(packed, light[split])
    make_folds(
        manifests["train"], config.folds.model_copy(update={"k": k}), 7, files.folds, files.certificate, files.classes
    )
    if files.overlap:
        report_overlap(manifests["train"], manifests["test"], 4, files.overlap)
    return files
