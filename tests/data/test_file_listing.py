"""The digest of a split's image files: of names and sizes, never of times."""

import os

import pandas as pd

from foldvote.data.file_listing import listing_digest
from support.data_folders import (
    class_folders,
    config_for,
    maskbase_folder,
    put,
    table_folder,
)
from support.layouts import FILES, FOLDERS, TABLE


def test_f54_the_listing_changes_with_files_and_not_with_times(tmp_path):
    root = maskbase_folder(tmp_path / "d")
    config = config_for(root)
    train, test = listing_digest(config, "train"), listing_digest(config, "test")
    for path in root.rglob("*.jpg"):
        os.utime(path, (1, 1))
    put(root / "train/images/._x.jpg", b"mac")
    assert (listing_digest(config, "train"), listing_digest(config, "test")) == (train, test)
    put(root / "eval/images/new.jpg", b"1")
    added = listing_digest(config, "test")
    assert added != test and listing_digest(config, "train") == train
    put(root / "eval/images/new.jpg", b"12")
    assert listing_digest(config, "test") not in (added, test)


def test_f54_the_listing_of_tables_folders_and_the_demo(tmp_path):
    root = table_folder(
        tmp_path / "t", [("a.jpg", "g", "x", "train"), ("b.jpg", "g", "y", "test")], ("path", "group", "label", "s")
    )
    config = config_for(root, TABLE | {"split": "s"})
    train, test = listing_digest(config, "train"), listing_digest(config, "test")
    put(root / "b.jpg", b"1")
    put(root / "c.jpg", b"1")
    assert listing_digest(config, "train") == train and listing_digest(config, "test") != test

    pd.DataFrame({"path": ["a.jpg"]}).to_parquet(root / "t.parquet")
    config = config_for(root, TABLE | {"table": "t.parquet"}, results=str(root / "results"))
    before = listing_digest(config, "train")
    put(root / "results/x.jpg", b"1")
    assert listing_digest(config, "train") == before
    put(root / "c.jpg", b"12")
    assert listing_digest(config, "train") != before

    folders = class_folders(tmp_path / "f", FILES)
    before = listing_digest(config_for(folders, FOLDERS), "train")
    (folders / "train/cat/p1_b.jpg").unlink()
    assert listing_digest(config_for(folders, FOLDERS), "train") != before

    demo = config_for(tmp_path, {"layout": "demo"}, data_root=None)
    before = listing_digest(demo, "train")
    put(demo.root / "train/images/a/mask1.jpg", b"1")
    assert listing_digest(demo, "train") == before
    assert listing_digest(config_for(tmp_path / "none"), "train") == before
