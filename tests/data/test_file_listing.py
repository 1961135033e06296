"""The digest of a split's image files: of names and sizes, never of times."""

import hashlib
import os
import unicodedata

import pandas as pd
import pytest

from foldvote.config.data import FoldersLayout
from foldvote.data.file_listing import listing_digest, new_listing_digest, passed_over
from support.data_folders import (
    class_folders,
    config_for,
    maskbase_folder,
    put,
    put_csv,
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
    replaced = next((root / "eval/images").iterdir())
    put(replaced, b"12")
    changed = listing_digest(config, "test")
    assert changed != test and listing_digest(config, "train") == train
    replaced.unlink()
    assert listing_digest(config, "test") not in (changed, test)


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
    put(root / "c.jpg", b"12")
    assert listing_digest(config, "train") == before
    put(root / "a.jpg", b"12")
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


ROWS = [("a.jpg", "g", "x", "train"), ("sub/b.jpg", "h", "y", "train"), ("c.jpg", "i", "", "test")]
COLUMNS = ("path", "group", "label", "part")
NOTHING = hashlib.sha256().hexdigest()


def as_csv(root):
    return "table.csv"


def as_parquet(root):
    pd.read_csv(root / "table.csv", dtype=str).to_parquet(root / "t.parquet")
    return "t.parquet"


def as_dictionary_and_bytes(root):
    frame = pd.read_csv(root / "table.csv", dtype=str)
    frame["path"], frame["part"] = frame["path"].str.encode("utf-8"), frame["part"].astype("category")
    frame.to_parquet(root / "t.pq")
    return "t.pq"


@pytest.mark.parametrize("table", [as_csv, as_parquet, as_dictionary_and_bytes])
def test_the_listing_covers_the_files_that_rows_name_and_no_others(tmp_path, table):
    root = table_folder(tmp_path / "d", ROWS, COLUMNS)
    config = config_for(root, TABLE | {"table": table(root), "split": "part"}, results=str(root / "results"))

    def digests():
        return [listing_digest(config, split) for split in ("train", "test")]

    before = digests()
    assert len({*before, NOTHING}) == 3
    for stray in (
        "new.jpg",
        "sub/new.jpg",
        "notes.txt",
        "results/x.parquet",
        "a.jpg.bak",
        ".hidden",
        "more/deep/d.png",
    ):
        put(root / stray, b"1")
    assert digests() == before
    for path in root.rglob("*.jpg"):
        os.utime(path, (1, 1))
    assert digests() == before
    put(root / "sub/b.jpg", b"12")
    changed = digests()
    assert changed[0] != before[0] and changed[1] == before[1]
    (root / "c.jpg").unlink()
    assert digests()[1] != changed[1] and digests()[0] == changed[0]


def test_the_home_tasks_listing_covers_the_shots_and_the_listed_test_images(tmp_path):
    root = maskbase_folder(tmp_path / "d")
    config = config_for(root)
    before = [listing_digest(config, split) for split in ("train", "test")]
    person = next(path for path in (root / "train/images").iterdir())
    for stray in ("eval/images/new.jpg", "eval/images/@eaDir/z.jpg", "train/images/nobody/mask1.jpg", "notes.txt"):
        put(root / stray, b"1")
    put(person / "selfie.jpg", b"1")
    assert [listing_digest(config, split) for split in ("train", "test")] == before
    put(person / "mask1.png", b"1")  # two files of one shot are refused, so they must be noticed
    assert listing_digest(config, "train") != before[0] and listing_digest(config, "test") == before[1]
    assert passed_over(config, "test") == {"@eaDir": 1}


def test_a_table_with_faults_gives_a_digest_and_no_crash(tmp_path):
    root = table_folder(tmp_path / "d", ROWS, COLUMNS)
    put(root / "bad.parquet", b"PAR1 no")
    put(root / "bad.csv", b"\xff\xfe\x00")
    put(root / "other.csv", "a,b\n1,2\n")
    pd.DataFrame({"a": [1]}).to_parquet(root / "other.parquet")
    for name in ("bad.parquet", "bad.csv", "other.csv", "other.parquet", "none.csv", "none.parquet"):
        assert listing_digest(config_for(root, TABLE | {"table": name}), "train") == NOTHING


def test_a_path_in_another_unicode_form_or_with_spaces_is_the_file_on_the_disk(tmp_path):
    root = tmp_path / "d"
    named, there = unicodedata.normalize("NFC", "pérez.jpg"), unicodedata.normalize("NFD", "pérez.jpg")
    put_csv(root / "table.csv", ["path", "group", "label"], [(named, "g", "x"), (" b.jpg ", "h", "y")])
    put(root / there, b"1")
    put(root / "b.jpg", b"1")
    config = config_for(root, TABLE)
    digests = [listing_digest(config, "train")]
    for name in (there, "b.jpg"):
        put(root / name, b"12")
        digests.append(listing_digest(config, "train"))
    assert len(set(digests)) == 3


@pytest.mark.parametrize("table", [as_csv, as_parquet])
@pytest.mark.parametrize("written", [unicodedata.normalize("NFD", "pfäd"), "pfäd", "\ufeffpfäd "])
def test_f179_columns_and_splits_are_known_by_their_plain_spelling(tmp_path, table, written):
    rows = [("a.jpg", "g", "x", "train"), ("b.jpg", "h", "y", "train\u200b"), ("c.jpg", "i", "", " test")]
    root = table_folder(tmp_path / "d", rows, (written, *COLUMNS[1:]))
    section = TABLE | {"table": table(root), "path": unicodedata.normalize("NFC", "pfäd"), "split": "part"}
    config = config_for(root, section)
    before = [listing_digest(config, split) for split in ("train", "test")]
    assert len({*before, NOTHING}) == 3
    for name in ("b.jpg", "c.jpg"):
        put(root / name, b"12")
    assert not {*before, NOTHING} & {listing_digest(config, split) for split in ("train", "test")}


def test_the_listing_of_new_images_changes_with_their_names_and_sizes(tmp_path, monkeypatch):
    layout = FoldersLayout(layout="folders", group_pattern="(.*)")
    new, results = tmp_path / "new", tmp_path / "new/results"
    put(new / "deep/a.jpg", b"1")
    put(results / "b.jpg", b"1")
    first = new_listing_digest(new, layout, results)
    os.utime(new / "deep/a.jpg", (1, 1))
    put(new / "notes.txt", b"1")
    put(results / "c.jpg", b"1")
    assert new_listing_digest(str(new), layout, str(results)) == first
    put(new / "deep/a.jpg", b"12")
    assert new_listing_digest(new, layout, results) != first
    table = put_csv(tmp_path / "t.csv", ["path"], [("new/deep/a.jpg",), ("absent.jpg",)])
    listed = new_listing_digest(table, layout, results)
    monkeypatch.chdir(tmp_path)
    assert new_listing_digest("t.csv", layout, results) == listed
    put(tmp_path / "absent.jpg", b"1")
    assert new_listing_digest(table, layout, results) != listed
    assert new_listing_digest(tmp_path / "nowhere", layout, results)
