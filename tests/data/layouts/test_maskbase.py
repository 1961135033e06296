"""The home task's folders: its rows, its labels, its corrections."""

import unicodedata
from pathlib import PurePosixPath

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from foldvote.data.entries import entries
from foldvote.data.layouts.maskbase_labels import age_band, age_levels
from support.data_folders import (
    PERSONS,
    SHOTS,
    config_for,
    encoded,
    maskbase_folder,
    picture,
    put,
    put_csv,
)
from support.layouts import layout_faults, with_corrections


def test_maskbase_rows_are_labelled_in_the_tables_order(tmp_path):
    frame, label_space, corrections, _ = entries(config_for(maskbase_folder(tmp_path / "d")), "train")
    assert len(frame) == 7 * len(PERSONS) and len(label_space.classes) == 18 and corrections == {}
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
    frame, _, _, _ = entries(config_for(maskbase_folder(tmp_path / "d")), "test")
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
    frame, _, _, _ = entries(config_for(root), "train")
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
    told = layout_faults(config_for(root))
    assert len(told) == 3
    assert "row 3" in told[0] and "mask1 is there 2 times (mask1.jpg, mask1.png)" in told[0]
    assert "row 3" in told[1] and "normal is missing" in told[1]
    assert "row 5" in told[2] and "no folder" in told[2]
    (missing,) = layout_faults(config_for(root), "test")
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
    told = layout_faults(config_for(root))
    assert [f"row {row}:" in line for row, line in zip(range(2, 8), told, strict=True)] == [True] * 6
    assert "did you mean 'female'?" in told[0]
    assert "'-3'" in told[1] and "0 to 120" in told[1]
    assert "group_pattern" in told[4] and "stands in row 2 already" in told[5]
    put_csv(root / "train/train.csv", ["id", "gender", "age", "path"], [(f"{n:06}", "?", 1, n) for n in range(50)])
    told = layout_faults(config_for(root))
    assert len(told) == 21 and told[-1] == "... and 30 more of this kind"


def test_f19_a_doubled_image_id_is_named_with_both_rows(tmp_path):
    root = maskbase_folder(tmp_path / "d")
    name = f"{1:040x}.jpg"
    put_csv(root / "eval/info.csv", ["ImageID", "ans"], [(name, 0), (name, 0)])
    (told,) = layout_faults(config_for(root), "test")
    assert "row 3" in told and "row 2 already" in told


def test_entry_paths_are_posix_and_relative(tmp_path):
    frame, _, _, _ = entries(config_for(maskbase_folder(tmp_path / "데이터 폴더")), "train")  # f53
    for path in frame["path"]:
        assert not PurePosixPath(path).is_absolute()
        assert (tmp_path / "데이터 폴더" / path).is_file()


def test_f17_paths_out_of_the_data_folder_are_refused_by_both_tables(tmp_path):
    root = maskbase_folder(tmp_path / "d")
    put_csv(root / "train/train.csv", ["id", "gender", "age", "path"], [("000001", "male", 3, "../x")])
    assert "`..`" in layout_faults(config_for(root))[0]
    put_csv(root / "eval/info.csv", ["ImageID"], [("/etc/passwd",), ("a/../../b",)])
    told = layout_faults(config_for(root), "test")
    assert "absolute" in told[0] and "`..`" in told[1]


def test_corrections_of_the_home_task(tmp_path):
    rows = [
        ("000001", "gender", "female", "male", "certain"),
        ("000002", "shots", "incorrect_mask", "normal", "certain"),
        ("000003-1", "age", ">=60", "<30", "certain"),
        ("000004_female_Asian_59", "age", "59", "61", "certain"),
        ("000004", "gender", "female", "male", "likely"),
        ("000002", "race", "Asian", "Other", "certain"),
    ]
    frame, _, summary, _ = entries(with_corrections(maskbase_folder(tmp_path / "d"), rows), "train")
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
    both = with_corrections(tmp_path / "d", rows, corrections_certainty=["certain", "likely"])
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
        ("00002", "gender", "male", "female", "certain"),
        ("000002", "age", "30to59", "unter30", "certain"),
    ]
    told = layout_faults(with_corrections(maskbase_folder(tmp_path / "d", persons), rows))
    expected = [
        "no person",
        "2 persons have this id; write the path instead: 000001_female_Asian_27 or 000001_male_Asian_30",
        "did you mean 'gender'?",
        "gender is male, not 'female'",
        "to is 'mail', which is not known; did you mean 'male'?",
        "age is 45 (30to59), not '<30'",
        "'old' is neither",
        "no shot 'mask7'",
        "changes nothing",
        "remove the row",
        "did you mean '000002'?",
        "did you mean 'under30'?",
    ]
    assert len(told) == len(expected)
    for row, (line, part) in enumerate(zip(told, expected, strict=True), start=2):
        assert f"fixes.csv, row {row}: id " in line and part in line


@given(st.integers(0, 120), st.tuples(st.integers(1, 119), st.integers(1, 119)).filter(lambda two: two[0] < two[1]))
def test_a_border_belongs_to_the_older_band(age, borders):
    levels = age_levels(borders)
    assert age_band(age, borders) == levels[int(np.searchsorted(borders, age, side="right"))]
    assert age_band(borders[0], borders) == levels[1] and age_band(borders[0] - 1, borders) == levels[0]
    assert age_band(borders[1], borders) == levels[2] and age_band(borders[1] - 1, borders) == levels[1]


def test_folders_of_persons_and_test_images_are_found_in_either_unicode_form(tmp_path):
    root = maskbase_folder(tmp_path / "d", [("000001", "female", "Jos\u00e9", 27)], tests=0)
    person = root / "train/images/000001_female_Jos\u00e9_27"
    person.rename(unicodedata.normalize("NFD", str(person)))
    put(root / "eval/images/zoe\u0308.jpg", encoded(picture()))
    put_csv(root / "eval/info.csv", ["ImageID"], [("zo\u00eb.jpg",)])
    frame = entries(config_for(root), "train").frame
    assert set(frame["profile"]) == {"000001_female_Jos\u00e9_27"}
    assert all((root / path).is_file() for path in frame["path"])
    test = entries(config_for(root), "test").frame
    assert test["image_id"].tolist() == ["zo\u00eb.jpg"] and test["path"].tolist() == ["eval/images/zoe\u0308.jpg"]
