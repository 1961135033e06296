"""What is wrong with a call of `snakemake predict` is said before any job, in one line each."""

from pathlib import Path

from foldvote.commands.new_images import new_images_faults
from support.data_folders import class_folders, config_for, put

DATA = {"layout": "folders", "group_pattern": "(.*)"}
NEEDED = ("ensemble/weights.json", "ensemble/prediction.json", "ensemble/oof.parquet", "data/classes.json")


def test_every_reason_why_nothing_can_be_predicted(tmp_path: Path) -> None:
    root = class_folders(tmp_path / "data", ["train/a/1.jpg", "train/b/2.jpg"])

    def faults(**changes: object) -> list[str]:
        return new_images_faults(config_for(root, DATA, results=str(tmp_path / "results"), **changes))

    unfinished, missing = faults()
    assert "is no finished run (ensemble/weights.json is missing); run the workflow to its end" in unfinished
    assert missing.startswith("new: missing: name a folder of images, or a table")
    for name in NEEDED:
        put(tmp_path / "results" / name, b"")
    assert len(faults()) == 1
    put(tmp_path / "photo.jpg", b"")
    put(tmp_path / "empty/.DS_Store", b"")
    put(tmp_path / "empty/readme.txt", b"")
    for new, fault in (
        ("nowhere", "is not there"),
        ("photo.jpg", "neither a folder nor a table"),
        ("empty", "no images"),
    ):
        (only,) = faults(new=str(tmp_path / new))
        assert fault in only
    assert faults(new=str(root)) == []
