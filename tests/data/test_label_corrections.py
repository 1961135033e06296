"""Where corrections are found, and which of them are applied; what they mean is tested with each layout."""

import pytest

from foldvote.data.entries import entries
from support.data_folders import config_for, maskbase_folder, put_csv, table_folder
from support.layouts import TABLE, layout_faults, with_corrections

ROWS = [("a.jpg", "p0", "owl"), ("b.jpg", "p1", "owl "), ("c.jpg", "p2", "wren"), ("jose\u0301.jpg", "-Kz", "wren")]


def test_corrections_are_found_from_the_working_directory_first(tmp_path, monkeypatch):
    root = maskbase_folder(tmp_path / "d")
    config = with_corrections(root, [("000001", "gender", "female", "male", "certain")])
    put_csv(tmp_path / "fixes.csv", ["id", "field", "from", "to", "source", "certainty"], [])
    assert len(entries(config, "train").corrections["applied"]) == 1
    monkeypatch.chdir(tmp_path)
    assert entries(config, "train").corrections["applied"] == []
    (told,) = layout_faults(config_for(root, corrections="nowhere.csv"))
    assert "nowhere.csv" in told


def test_a_correction_is_read_as_the_table_is(tmp_path):
    rows = [
        ("b.jpg", "label", "owl ", "wren\u00a0", "certain "),
        ("jos\u00e9.jpg", "label ", "wren", "owl", "certain"),
        ("-Kz ", "label", "owl", "wren", "certain"),
    ]
    found = entries(with_corrections(table_folder(tmp_path / "d", ROWS), rows, TABLE), "train")
    assert found.frame["class_name"].tolist() == ["owl", "wren", "wren", "wren"]
    assert [row["id"] for row in found.corrections["applied"]] == ["b.jpg", "jos\u00e9.jpg", "-Kz"]


def test_a_correction_of_a_spelling_that_is_read_alike_is_skipped(tmp_path):
    rows = [("b.jpg", "label", "owl ", "owl", "certain")]
    found = entries(with_corrections(table_folder(tmp_path / "d", ROWS), rows, TABLE), "train")
    assert found.label_space.classes == ("owl", "wren") and found.corrections["applied"] == []
    assert found.corrections["skipped"] == {"only the spelling": 1}


def test_names_that_the_data_does_not_have_are_refused_with_the_near_one(tmp_path):
    rows = [
        ("a.jpg", "label", "owl", "wrem", "certain"),
        ("a.jpg", "label", "owl", "eagle", "certain"),
        ("A.jpg", "label", "owl", "wren", "certain"),
        ("-kz", "label", "wren", "owl", "certain"),
        ("a.jpg", "label", "owl", "", "certain"),
        ("a.jpg", "label", "owl", "wren", "cretain"),
        ("a.jpg", "label", "owl", "wren", "Certain"),
        ("a.jpg", "labl", "owl", "wren", "certain"),
    ]
    root = table_folder(tmp_path / "d", ROWS)
    told = layout_faults(with_corrections(root, rows, TABLE))
    expected = [
        "to is 'wrem', which is not known; did you mean 'wren'?",
        "to is 'eagle', which is not known; use one of owl, wren",
        "no training image or group of the data has this id; did you mean 'a.jpg'?",
        "did you mean '-Kz'?",
        "to is '', which is not known",
        "the certainty 'cretain' is not one of corrections_certainty; did you mean 'certain'?",
        "did you mean 'certain'?",
        "did you mean 'label'?",
    ]
    assert len(told) == len(expected)
    for row, (line, part) in enumerate(zip(told, expected, strict=True), start=2):
        assert f"fixes.csv, row {row}: id " in line and part in line
    (told,) = layout_faults(with_corrections(root, rows[:1], TABLE | {"classes": ["owl", "wren"]}))
    assert "did you mean 'wren'?" in told
    listed = with_corrections(root, rows[:1], TABLE | {"classes": ["owl", "wren", "wrem"]})
    assert entries(listed, "train").frame["class_name"].tolist()[0] == "wrem"


@pytest.mark.parametrize("word", ["likely", "suspected", "uncertain", "", "sure", "no"])
def test_another_certainty_is_skipped_and_counted(tmp_path, word):
    root = table_folder(tmp_path / "d", ROWS)
    found = entries(with_corrections(root, [("a.jpg", "label", "owl", "wren", word)], TABLE), "train")
    assert found.corrections["skipped"] == {f"certainty {word}": 1}


def test_a_class_that_earlier_corrections_emptied_is_still_one(tmp_path):
    rows = [("p2", "label", "wren", "owl", "certain"), ("-Kz", "label", "wren", "owl", "certain")]
    rows += [("a.jpg", "label", "owl", "wren", "certain")]
    found = entries(with_corrections(table_folder(tmp_path / "d", ROWS), rows, TABLE), "train")
    assert found.frame["class_name"].tolist() == ["wren", "owl", "owl", "owl"]
