"""From data folders to entries, and the corrections on the way."""

import os
from pathlib import Path, PurePosixPath

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from foldvote.data.file_listing import listing_digest
from foldvote.data.layouts.table import entries
from foldvote.errors import UserError
from foldvote.io.paths import real_path_below, relative_fault, tidy
from support.data_folders import (
    PERSONS,
    SHOTS,
    class_folders,
    config_for,
    encoded,
    maskbase_folder,
    picture,
    put,
    put_csv,
    table_folder,
)

TABLE = {"layout": "table", "table": "table.csv"}
FACTORS = {"wear": ["yes", "no"], "sex": ["m", "f"]}


def faults(config, split="train") -> list[str]:
    with pytest.raises(UserError) as caught:
        entries(config, split)
    return list(caught.value.faults)


# ---- the home task


def test_maskbase_rows_are_labelled_in_the_tables_order(tmp_path):
    frame, scheme, corrections = entries(config_for(maskbase_folder(tmp_path / "d")), "train")
    assert len(frame) == 7 * len(PERSONS) and len(scheme.classes) == 18 and corrections == {}
    third = frame.iloc[14:21]
    assert third["image_id"].tolist() == [f"000003-1_male_Asian_60/{shot}.jpg" for shot in SHOTS]
    assert third["path"].tolist() == [f"train/images/000003-1_male_Asian_60/{shot}.jpg" for shot in SHOTS]
    assert set(third["profile"]) == {"000003-1_male_Asian_60"} and set(third["group"]) == {"000003"}
    assert set(third["person_id"]) == {"000003-1"} and set(third["age_years"]) == {60}
    # mask*6 + gender*3 + age band; 60 is the oldest band, 59 the middle one.
    assert third["label"].tolist() == [2] * 5 + [8, 14]
    assert frame["label"].tolist()[-7:] == [4] * 5 + [10, 16]
    assert frame["class_name"].iloc[-1] == "not-wear-female-30to59"
    assert not frame["corrected"].any()


def test_maskbase_test_rows_follow_the_table_and_have_no_label(tmp_path):
    frame, _, _ = entries(config_for(maskbase_folder(tmp_path / "d")), "test")
    assert frame["image_id"].tolist() == [f"{number:040x}.jpg" for number in (3, 2, 1)]
    assert frame["path"].iloc[0] == f"eval/images/{3:040x}.jpg"
    assert set(frame["label"]) == {-1}
    assert frame[["profile", "group", "mask", "age_years", "class_name"]].isna().all().all()


def test_maskbase_takes_mixed_extensions_and_leaves_hidden_files(tmp_path, capsys):
    root = maskbase_folder(tmp_path / "d")
    folder = root / "train/images/000001_female_Asian_27"
    (folder / "mask2.jpg").rename(folder / "mask2.PNG")
    put(folder / "._mask2.PNG", b"mac")
    put(folder / ".DS_Store", b"mac")
    put(folder / "mask9.jpg", b"other")
    frame, _, _ = entries(config_for(root), "train")
    assert "000001_female_Asian_27/mask2.PNG" in set(frame["image_id"])
    assert len(frame) == 7 * len(PERSONS)
    told = capsys.readouterr().err
    assert "1 files" in told and "mask9.jpg" in told


def test_maskbase_names_missing_and_doubled_shots(tmp_path):
    root = maskbase_folder(tmp_path / "d")
    folder = root / "train/images/000002_male_Asian_45"
    (folder / "normal.jpg").unlink()
    put(folder / "mask1.png", encoded(picture(), "PNG"))
    (root / "eval/images" / f"{2:040x}.jpg").unlink()
    for path in (root / "train/images/000004_female_Asian_59").iterdir():
        path.unlink()
    (root / "train/images/000004_female_Asian_59").rmdir()
    told = faults(config_for(root))
    assert len(told) == 3
    assert "row 3" in told[0] and "mask1 is there 2 times (mask1.jpg, mask1.png)" in told[0]
    assert "row 3" in told[1] and "normal is missing" in told[1]
    assert "row 5" in told[2] and "no folder" in told[2]
    (missing,) = faults(config_for(root), "test")
    assert "row 3" in missing and f"{2:040x}.jpg" in missing


def test_f21_every_bad_row_of_the_persons_is_named_up_to_twenty(tmp_path):
    root = maskbase_folder(tmp_path / "d")
    bad = [
        ("000001", "femal", "Asian", "27", "a"),
        ("000002", "male", "Asian", "-3", "b"),
        ("000003", "male", "Asian", "250", "c"),
        ("000004", "male", "Asian", "30.5", "d"),
        ("x5", "male", "Asian", "30", "e"),
        ("000006", "male", "Asian", "30", "a"),
    ]
    put_csv(root / "train/train.csv", ["id", "gender", "race", "age", "path"], bad)
    told = faults(config_for(root))
    assert [f"row {row}:" in line for row, line in zip(range(2, 8), told, strict=True)] == [True] * 6
    assert "did you mean 'female'?" in told[0]
    assert "'-3'" in told[1] and "0 to 120" in told[1]
    assert "group_pattern" in told[4] and "stands in row 2 already" in told[5]
    put_csv(root / "train/train.csv", ["id", "gender", "age", "path"], [(f"{n:06}", "?", 1, n) for n in range(50)])
    told = faults(config_for(root))
    assert len(told) == 21 and told[-1] == "... and 30 more of this kind"


def test_f19_a_doubled_image_id_is_named_with_both_rows(tmp_path):
    root = maskbase_folder(tmp_path / "d")
    name = f"{1:040x}.jpg"
    put_csv(root / "eval/info.csv", ["ImageID", "ans"], [(name, 0), (name, 0)])
    (told,) = faults(config_for(root), "test")
    assert "row 3" in told and "row 2 already" in told


def test_f17_paths_out_of_the_data_folder_are_refused_in_every_table(tmp_path):
    root = maskbase_folder(tmp_path / "d")
    put_csv(root / "train/train.csv", ["id", "gender", "age", "path"], [("000001", "male", 3, "../x")])
    assert "`..`" in faults(config_for(root))[0]
    put_csv(root / "eval/info.csv", ["ImageID"], [("/etc/passwd",), ("a/../../b",)])
    told = faults(config_for(root), "test")
    assert "absolute" in told[0] and "`..`" in told[1]
    table = table_folder(tmp_path / "t", [("../a.jpg", "g", "x"), ("/a.jpg", "g", "y"), ("C:\\a.jpg", "g", "x")])
    told = faults(config_for(table, TABLE))
    assert ["`..`" in told[0], "absolute" in told[1], "absolute" in told[2]] == [True] * 3


@given(
    st.lists(st.sampled_from(["..", ".", "a", "b c", "가", "", "\\", "..\\", "~", "a.jpg"]), max_size=6).map("/".join)
)
def test_f17_a_path_that_passes_stays_below_the_root(text):
    if relative_fault(text) is None:
        whole = os.path.normpath(f"/data/root/{text}")
        assert whole == "/data/root" or whole.startswith("/data/root/")
        assert os.path.normpath(f"/data/root/{tidy(text)}") == whole
    else:
        assert not text.strip() or text.startswith("/") or ".." in text or "\\\\" in text


def test_f17_a_symlink_is_followed_before_the_path_is_judged(tmp_path):
    put(tmp_path / "d/a.jpg", b"x")
    (tmp_path / "d/up").symlink_to("..")
    assert real_path_below(tmp_path / "d", "up/d/a.jpg") == (tmp_path / "d/a.jpg").resolve()
    put(tmp_path / "d2/a.jpg", b"x")
    with pytest.raises(ValueError, match="out of the data folder"):
        real_path_below(tmp_path / "d", "up/d2/a.jpg")


# ---- tables


def test_table_rows_with_labels(tmp_path):
    rows = [("x/b.jpg", "007", "cat", "1e5"), ("x//a.jpg", "NA", "dog", "null"), ("y/가 나.jpg", "007", "cat", "007")]
    root = table_folder(tmp_path / "d", rows, ("path", "group", "label", "name"))
    frame, scheme, _ = entries(config_for(root, TABLE | {"id": "name"}), "train")
    assert scheme.classes == ("cat", "dog")
    assert frame["image_id"].tolist() == ["1e5", "null", "007"]  # f18
    assert frame["path"].tolist() == ["x/b.jpg", "x/a.jpg", "y/가 나.jpg"]  # f53
    assert frame["group"].tolist() == frame["profile"].tolist() == ["007", "NA", "007"]
    assert frame["label"].tolist() == [0, 1, 0] and frame["label"].dtype == "int16"
    by_path, _, _ = entries(config_for(root, TABLE), "train")
    assert by_path["image_id"].tolist() == ["x/b.jpg", "x//a.jpg", "y/가 나.jpg"]


def test_table_rows_with_factors_and_a_split_as_parquet(tmp_path):
    rows = [("a.jpg", "g1", "yes", "f", "train"), ("b.jpg", "g2", "no", "m", "train"), ("c.jpg", "", "?", "", "test")]
    header = ["path", "group", *FACTORS, "split"]
    root = table_folder(tmp_path / "d", rows, header)
    pd.DataFrame(rows, columns=header).to_parquet(root / "t.parquet")
    for name in ("table.csv", "t.parquet"):
        config = config_for(root, TABLE | {"table": name, "label": None, "factors": FACTORS, "split": "split"})
        train, scheme, _ = entries(config, "train")
        assert scheme.classes == ("yes-m", "yes-f", "no-m", "no-f")
        assert train["label"].tolist() == [1, 2] and train["class_name"].tolist() == ["yes-f", "no-m"]
        test, _, _ = entries(config, "test")
        assert test["label"].tolist() == [-1] and test[["group", "wear", "sex", "class_name"]].isna().all().all()


def test_f21_bad_labels_of_a_table_are_named_by_row(tmp_path):
    rows = [
        ("a.jpg", "g", "cat"),
        ("b.jpg", "g", "dgo"),
        ("c.jpg", "", "dog"),
        ("d.jpg", "g", ""),
        ("e.jpg", "g", "13.0"),
    ]
    root = table_folder(tmp_path / "d", rows)
    told = faults(config_for(root, TABLE))
    assert len(told) == 3
    assert "row 4: group is empty" in told[0]
    assert "row 5: label is empty" in told[1] and "row 6" in told[2] and "fraction" in told[2]
    told = faults(config_for(root, TABLE | {"classes": ["cat", "dog"]}))
    assert "row 3" in told[1] and "did you mean 'dog'?" in told[1]
    assert "row 6: label '13.0' is not known; use one of cat, dog" in told[3]
    put_csv(root / "table.csv", ["path", "group", "label", "row"], [("a.jpg", "g", "cat", "x")])
    (told,) = faults(config_for(root, TABLE))
    assert "at least two" in told


def test_f19_f20_faults_of_a_table(tmp_path):
    root = table_folder(tmp_path / "d", [("a.jpg", "g", "x"), ("./a.jpg", "g", "y"), ("b.jpg", "g", "y")])
    (root / "b.jpg").unlink()
    told = faults(config_for(root, TABLE))
    assert "row 4" in told[0] and "no file 'b.jpg'" in told[0]
    assert "row 3" in told[1] and "row 2 already" in told[1]
    (told,) = faults(config_for(root, TABLE | {"group": "groop"}))
    assert "did you mean 'group'?" in told
    (told,) = faults(config_for(root, TABLE | {"split": "label"}))[:1]
    assert "row 2: label is 'x'; write train or test" in told
    put(root / "table.csv", "path,group,label\n")
    assert "no rows" in faults(config_for(root, TABLE))[0]
    taken = TABLE | {"label": None, "factors": {"group": ["a", "b"]}}
    assert "rename the factor" in faults(config_for(root, taken))[0]


# ---- one folder a class

FILES = ["train/dog/p1_a.jpg", "train/cat/deep/er/p2_a.jpg", "train/cat/p1_b.jpg", "test/z.jpg", "test/sub/y y.jpg"]
FOLDERS = {"layout": "folders", "test": "test", "group_pattern": r"(p\d)_"}


def test_folders_at_any_depth_are_sorted_and_grouped(tmp_path):
    root = class_folders(tmp_path / "d", FILES)
    put(root / "train/cat/._p1_b.jpg", b"mac")
    (root / "train/empty").mkdir()
    frame, scheme, _ = entries(config_for(root, FOLDERS), "train")
    assert scheme.classes == ("cat", "dog", "empty")
    assert frame["image_id"].tolist() == ["cat/deep/er/p2_a.jpg", "cat/p1_b.jpg", "dog/p1_a.jpg"]
    assert frame["path"].tolist() == [f"train/{name}" for name in frame["image_id"]]
    assert frame["group"].tolist() == ["p2", "p1", "p1"] and frame["label"].tolist() == [0, 0, 1]
    test, _, _ = entries(config_for(root, FOLDERS), "test")
    assert test["image_id"].tolist() == ["sub/y y.jpg", "z.jpg"] and set(test["label"]) == {-1}
    given, scheme, _ = entries(config_for(root, FOLDERS | {"classes": ["empty", "dog", "cat"]}), "train")
    assert scheme.classes == ("empty", "dog", "cat") and given["label"].tolist() == [2, 2, 1]


def test_folders_faults(tmp_path):
    root = class_folders(tmp_path / "d", FILES)
    (told,) = faults(config_for(root, FOLDERS | {"classes": ["cat", "dig"]}))
    assert "did you mean 'dig'?" in told
    told = faults(config_for(root, FOLDERS | {"group_pattern": "q(.)"}))
    assert len(told) == 3 and "p1_b.jpg" in told[1]
    assert "parentheses" in faults(config_for(root, FOLDERS | {"group_pattern": "p."}))[0]
    assert "no regular expression" in faults(config_for(root, FOLDERS | {"group_pattern": "("}))[0]
    assert "no such folder" in faults(config_for(root, FOLDERS | {"train": "nope"}))[0]
    assert "`..`" in faults(config_for(root, FOLDERS | {"train": "../d/train"}))[0]
    put(root / "train/loose.jpg", b"x")
    assert "loose.jpg" in faults(config_for(root, FOLDERS))[0]
    assert "no test images" in faults(config_for(root, FOLDERS | {"test": None}), "test")[0]
    assert "data_root" in faults(config_for(tmp_path / "none", FOLDERS))[0]


def test_f16_a_symlinked_folder_is_no_silent_gap_and_no_loop(tmp_path):
    root = class_folders(tmp_path / "d", FILES)
    (root / "train/cat/p3_loop").symlink_to("..")
    frame, _, _ = entries(config_for(root, FOLDERS), "train")
    assert "cat/p3_loop" in set(frame["image_id"])
    assert len(frame) == 4


# ---- corrections


def corrected(root: Path, rows, data=None, **others):
    put_csv(
        root / "fixes.csv",
        ["id", "field", "from", "to", "source", "certainty"],
        [(*row[:4], "me", row[4]) for row in rows],
    )
    return config_for(root, data, corrections="fixes.csv", **others)


def test_corrections_of_the_home_task(tmp_path):
    rows = [
        ("000001", "gender", "female", "male", "certain"),
        ("000002", "shots", "incorrect_mask", "normal", "certain"),
        ("000003-1", "age", ">=60", "<30", "certain"),
        ("000004_female_Asian_59", "age", "59", "61", "certain"),
        ("000004", "gender", "female", "male", "likely"),
        ("000002", "race", "Asian", "Other", "certain"),
    ]
    frame, _, summary = entries(corrected(maskbase_folder(tmp_path / "d"), rows), "train")
    of = dict(list(frame.groupby("person_id")))
    assert set(of["000001"]["gender"]) == {"male"} and of["000001"]["label"].tolist() == [0] * 5 + [6, 12]
    assert of["000002"]["mask"].tolist() == ["wear"] * 5 + ["not-wear", "incorrect"]
    assert of["000002"]["corrected"].tolist() == [False] * 5 + [True] * 2
    assert set(of["000003-1"]["age"]) == {"under30"} and set(of["000003-1"]["age_years"]) == {60}
    assert set(of["000004"]["age"]) == {"60plus"} and set(of["000004"]["age_years"]) == {61}
    assert set(of["000004"]["gender"]) == {"female"}
    assert frame["corrected"].sum() == 7 + 2 + 7 + 7
    assert len(summary["applied"]) == 4 and len(summary["sha256"]) == 64
    assert summary["skipped"] == {"certainty likely": 1, "field race": 1}
    both = corrected(tmp_path / "d", rows, corrections_certainty=["certain", "likely"])
    assert len(entries(both, "train").corrections["applied"]) == 5


def test_corrections_that_do_not_fit_are_faults_with_rows(tmp_path):
    persons = [*PERSONS, ("000001", "male", "Asian", 30)]
    rows = [
        ("000009", "gender", "female", "male", "certain"),
        ("000001", "gender", "female", "male", "certain"),
        ("000002", "gendre", "male", "female", "certain"),
        ("000002", "gender", "female", "male", "certain"),
        ("000002", "gender", "male", "mail", "certain"),
        ("000002", "age", "<30", ">=60", "certain"),
        ("000002", "age", "45", "old", "certain"),
        ("000002", "shots", "normal", "mask7", "certain"),
        ("000002", "shots", "mask1", "mask2", "certain"),
        ("000002", "age", "45", "45", "certain"),
    ]
    told = faults(corrected(maskbase_folder(tmp_path / "d", persons), rows))
    expected = [
        "no person",
        "2 persons have this id; write the path instead: 000001_female_Asian_27 or 000001_male_Asian_30",
        "did you mean 'gender'?",
        "gender is male, not 'female'",
        "to is 'mail'",
        "age is 45 (30to59), not '<30'",
        "'old' is neither",
        "no shot 'mask7'",
        "changes nothing",
        "remove the row",
    ]
    assert len(told) == len(expected)
    for row, (line, part) in enumerate(zip(told, expected, strict=True), start=2):
        assert f"fixes.csv, row {row}: id " in line and part in line


def test_corrections_of_tables_and_folders(tmp_path):
    root = table_folder(tmp_path / "t", [("a.jpg", "g1", "cat"), ("b.jpg", "g1", "cat"), ("c.jpg", "g2", "dgo")])
    rows = [("c.jpg", "label", "dgo", "dog", "certain"), ("g1", "label", "cat", "cow", "certain")]
    frame, scheme, _ = entries(corrected(root, rows, TABLE), "train")
    assert frame["class_name"].tolist() == ["cow", "cow", "dog"] and scheme.classes == ("cow", "dog")
    told = faults(
        corrected(root, [("a.jpg", "lable", "cat", "dog", "certain"), ("z", "label", "a", "b", "certain")], TABLE)
    )
    assert "did you mean 'label'?" in told[0] and "no training image or group" in told[1]

    root = class_folders(tmp_path / "f", FILES)
    frame, _, _ = entries(corrected(root, [("dog/p1_a.jpg", "label", "dog", "cat", "certain")], FOLDERS), "train")
    assert frame["class_name"].tolist() == ["cat"] * 3 and frame["corrected"].tolist() == [False, False, True]

    rows = [("a.jpg", "g1", "yes", "f"), ("b.jpg", "g2", "no", "m")]
    root = table_folder(tmp_path / "x", rows, ["path", "group", *FACTORS])
    data = TABLE | {"label": None, "factors": FACTORS}
    frame, _, _ = entries(corrected(root, [("a.jpg", "sex", "f", "m", "certain")], data), "train")
    assert frame["label"].tolist() == [0, 2]


def test_corrections_are_found_from_the_working_directory_first(tmp_path, monkeypatch):
    root = maskbase_folder(tmp_path / "d")
    config = corrected(root, [("000001", "gender", "female", "male", "certain")])
    put_csv(tmp_path / "fixes.csv", ["id", "field", "from", "to", "source", "certainty"], [])
    assert len(entries(config, "train").corrections["applied"]) == 1
    monkeypatch.chdir(tmp_path)
    assert entries(config, "train").corrections["applied"] == []
    (told,) = faults(config_for(root, corrections="nowhere.csv"))
    assert "nowhere.csv" in told


# ---- the digest of the listing


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


def test_entry_paths_are_posix_and_relative(tmp_path):
    frame, _, _ = entries(config_for(maskbase_folder(tmp_path / "데이터 폴더")), "train")  # f53
    for path in frame["path"]:
        assert not PurePosixPath(path).is_absolute()
        assert (tmp_path / "데이터 폴더" / path).is_file()
