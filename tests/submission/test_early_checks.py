"""What is known before any image is opened."""

from pathlib import Path
from typing import Any

import pytest

from foldvote.commands.doctor import _contents
from foldvote.commands.session import check_before_jobs
from foldvote.config.experiment import Config
from foldvote.config.folds import Folds
from foldvote.submission.early_checks import early_checks
from support.data_folders import class_folders, config_for, maskbase_folder, put, put_csv, table_folder

FOLDERS = {"layout": "folders", "test": "test", "group_pattern": r"^(\d)"}
TABLE = {"layout": "table", "table": "table.csv", "split": "use"}
TESTS = ["test/00ab.png", "test/01ab.png"]
ROWS = [(f"{n}.png", f"person {n}", "12"[n % 2], "train") for n in range(4)] + [("x.png", "", "", "test")]
HEADER = ("path", "group", "label", "use")


def faults(config: Config) -> list[str]:
    """The faults; `doctor` and the start of a run must tell the same ones."""
    found = early_checks(config)
    config = config.model_copy(update={"folds": Folds(method="holdout", fraction=0.5)})  # can be split
    told = list(_contents(config))
    assert [finding.text for finding in told if finding.level == "error"] == found.faults
    if found.faults:
        with pytest.raises(SystemExit) as stopped:
            check_before_jobs(config)
        assert str(stopped.value).splitlines() == found.faults
    else:
        assert [finding.text for finding in told if finding.level == "warning"] == found.notes
        check_before_jobs(config)
    return found.faults


def birds(root: Path, sample: str, **form: Any) -> Config:
    class_folders(root, [*(f"train/{'wren' if n % 2 else 'owl'}/{n}.png" for n in range(4)), *TESTS])
    put(root / "sample.csv", sample)
    return config_for(
        root, FOLDERS, submission={"sample": "sample.csv", "id_column": "id", "answer_column": "l"} | form
    )


def test_a_sample_without_extensions_is_matched_and_said_so(tmp_path: Path) -> None:
    config = birds(tmp_path / "d", "id,l\n01ab,0\n00ab,0\n")
    assert faults(config) == []
    (note,) = early_checks(config).notes
    assert note.endswith(
        "sample.csv: its ids are taken for those of the test images without extension: 01ab is 01ab.png"
    )


def test_a_sample_of_other_images_or_columns_is_refused_with_what_to_do(tmp_path: Path) -> None:
    (told,) = faults(birds(tmp_path / "d", "id,l\nA,0\nB,0\n"))
    assert "no id is that of a test image: its column holds A, B; the images are 00ab.png, 01ab.png; give the" in told
    told = faults(birds(tmp_path / "d", "id,l\n00ab,0\n00ab,0\nnew,1\n"))[0]
    assert "1 ids stand twice or more: 00ab; keep each once" in told
    told = faults(birds(tmp_path / "d", "id,l\n00ab,0\nnew,1\n"))
    assert "1 ids of the test images are missing: 01ab.png" in told[0]
    assert "1 ids are not in the test images: new" in told[1]
    told = faults(birds(tmp_path / "d", "image,label\n00ab,0\n01ab,0\n"))
    assert "has no column 'id' for the image ids; it has image, label: set submission.id_column" in told[0]
    assert "has no column 'l' for the answers; it has image, label: set submission.answer_column" in told[1]
    assert (
        "id_column and answer_column are both 'id'"
        in faults(birds(tmp_path / "d", "id\n00ab\n01ab\n", answer_column="id"))[-1]
    )
    told = faults(birds(tmp_path / "d", "id,owl,robin\n00ab,0,0\n01ab,0,0\n", answer="probabilities"))
    assert "1 columns are no class: robin; 1 classes have no column: wren" in told[0]


def test_a_class_called_like_the_column_of_ids_would_overwrite_them(tmp_path: Path) -> None:
    class_folders(tmp_path / "d", ["train/wren/1.png", "train/wren/2.png", "train/id/3.png", "train/id/4.png", *TESTS])
    form = {"id_column": "id", "answer": "probabilities"}
    (told,) = faults(config_for(tmp_path / "d", FOLDERS, submission=form))
    assert "submission.id_column: 'id' is a class as well; choose another name" in told


def test_answers_of_another_form_in_the_sample_are_worth_a_note(tmp_path: Path) -> None:
    for sample, noted in (("0", False), ("9", False), ("owl", True), ("", False)):
        config = birds(tmp_path / "d", f"id,l\n00ab,{sample}\n01ab,{sample}\n")
        assert faults(config) == []
        assert any("does not write" in note for note in early_checks(config).notes) == noted
    config = birds(tmp_path / "d", "id,l\n00ab,3\n01ab,4\n")
    assert "column l holds '3', '4', which submission.answer: code does not write" in early_checks(config).notes[1]


def test_every_missing_column_and_image_is_named_at_once(tmp_path: Path) -> None:
    root = table_folder(tmp_path / "d", [("a.png", "p", "owl"), ("b.png", "q", "wren")])
    (root / "b.png").unlink()
    data = {"layout": "table", "table": "table.csv", "group": "patient", "label": "species", "split": "use"}
    form = {"sample": "table.csv", "id_column": "nosuch", "answer_column": "other"}
    told = faults(config_for(root, data, submission=form))
    words = ("'patient'", "'species'", "'use'", "no file 'b.png'", "'nosuch'", "'other'")
    assert [word in line for word, line in zip(words, told, strict=True)] == [True] * 6


def test_true_answers_are_compared_with_images_and_classes(tmp_path: Path) -> None:
    root = table_folder(tmp_path / "d", ROWS, HEADER)
    form = {"id_column": "path", "answer_column": "label"}
    config = config_for(root, TABLE, answers="truth.csv", submission=form)
    put_csv(root / "truth.csv", ["path", "label"], [("x", "2")])
    assert faults(config) == []
    put_csv(root / "truth.csv", ["path", "label"], [("x.png", "0"), ("y.png", "1")])
    told = faults(config)
    assert "1 ids are not in the test images: y.png" in told[0] and "1 answers are not a number of the data" in told[1]
    put_csv(root / "truth.csv", ["file", "label"], [("x.png", "1")])
    assert "'path' is missing" in faults(config)[0]


def test_codes_that_contradict_the_numbers_of_the_data_are_refused(tmp_path: Path) -> None:
    rows = [*ROWS, ("y.png", "person 9", "unknown", "train")]
    root = table_folder(tmp_path / "d", rows, HEADER)
    (told,) = faults(config_for(root, TABLE))
    assert told.startswith("submission.answer: code would write other numbers than the data: '1' as 0, '2' as 1")
    assert faults(config_for(root, TABLE, submission={"answer": "name"})) == []
    root = table_folder(tmp_path / "e", [row for row in rows if row[3] == "train"], HEADER)
    assert faults(config_for(root, TABLE | {"split": None})) == []  # nothing is handed in


def test_sound_data_is_sound_and_a_sample_or_answers_without_test_images_are_noted(tmp_path: Path) -> None:
    assert faults(config_for(maskbase_folder(tmp_path / "m"))) == []
    root = table_folder(tmp_path / "t", [row[:3] for row in ROWS[:4]])
    put_csv(root / "truth.csv", ["ImageID", "ans"], [("0.png", "1")])
    config = config_for(
        root, {"layout": "table", "table": "table.csv"}, answers="truth.csv", submission={"sample": "truth.csv"}
    )
    assert faults(config) == []
    assert [note.split(":")[0] for note in early_checks(config).notes] == ["submission.sample", "answers"]


def test_folds_that_cannot_be_made_are_told_by_doctor_before_any_image_is_opened(tmp_path: Path) -> None:
    root = table_folder(tmp_path / "d", ROWS, HEADER)
    assert early_checks(config_for(root, TABLE, folds={"k": 2}), split=True).faults == []
    (told,) = early_checks(config_for(root, TABLE, folds={"k": 5}), split=True).faults
    assert told == "folds: 5 parts of 4 groups leave some part empty; lower folds.k to 2"
    own = put_csv(tmp_path / "folds.csv", ["group", "fold"], [(f"person {n}", n % 2) for n in range(3)])
    config = config_for(root, TABLE, folds={"method": "file", "file": str(own), "k": 2})
    (told,) = [finding.text for finding in _contents(config) if finding.level == "error"]
    assert "group person 3 of the manifest has no fold; add a row" in told


# --- the columns of the leak check


def test_a_column_of_the_leak_check_that_is_nowhere_is_told_with_the_nearest_one(tmp_path: Path) -> None:
    """`race` is in the table alone, `width` in the manifest alone; without pretrained weights nothing is checked."""
    weights = "resources/weights/tf_efficientnet_lite0.safetensors"
    net, root = {"net": "tf_efficientnet_lite0", "pretrained": weights}, maskbase_folder(tmp_path / "d")
    columns = {"columns": ["race", "width", "gendr", "profile"]}
    (told,) = faults(config_for(root, models={"a": net}, leak_check=columns))
    assert told == (
        "leak_check.columns: neither the manifest nor the table of data has 'gendr'; did you mean 'gender'?"
    )
    assert faults(config_for(root, leak_check=columns)) == []
