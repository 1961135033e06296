"""Which groups a submission answers, and what is refused before any training."""

import pytest

from foldvote.config.experiment import check_config
from foldvote.data.entries import entries
from foldvote.errors import UserError
from foldvote.submission.answer_units import answered_names, check_groups
from support.data_folders import class_folders, config_for, put_csv, table_folder

HEADER = ("path", "group", "label", "use")
ROWS = [
    ("a1.jpg", "p1", "cat", "train"),
    ("a2.jpg", "p1", "cat", "train"),
    ("b1.jpg", "p2", "dog", "train"),
    ("c1.jpg", "t2", "", "test"),
    ("c2.jpg", "t1", "", "test"),
    ("c3.jpg", "t2", "", "test"),
]
TABLE = {"layout": "table", "table": "table.csv", "split": "use"}


def of_groups(root, rows=ROWS, data=None, **others):
    form = {"unit": "group", "id_column": "patient", "answer": "name"}
    submission = form | others.pop("submission", {})
    return config_for(table_folder(root, rows, HEADER), data or TABLE, submission=submission, **others)


def refused(config):
    with pytest.raises(UserError) as caught:
        check_groups(config)
    assert all(";" in fault and "\n" not in fault for fault in caught.value.faults)
    return caught.value.faults


def test_the_names_are_those_of_the_test_groups(tmp_path):
    config = of_groups(tmp_path / "data")
    check_groups(config)
    test = entries(config, "test").frame
    assert answered_names(config, test) == ["t1", "t2"]
    images = config.model_copy(update={"submission": config.submission.model_copy(update={"unit": "image"})})
    assert answered_names(images, test) == ["c1.jpg", "c2.jpg", "c3.jpg"]


def test_f_groups_of_several_classes_are_named(tmp_path):
    rows = [*ROWS, ("a3.jpg", "p1", "dog", "train"), ("d1.jpg", "p3", "cat", "train"), ("d2.jpg", "p3", "dog", "train")]
    (fault,) = refused(of_groups(tmp_path / "data", rows))
    assert "2 groups have different classes: p1 (cat, dog), p3 (cat, dog)" in fault


def test_a_group_of_external_images_needs_no_answer_and_so_no_single_class(tmp_path):
    class_folders(tmp_path / "web", ["cat/one_1.jpg", "dog/one_2.jpg"])
    folders = {"layout": "folders", "train": ".", "group_pattern": "^(one)"}
    check_groups(of_groups(tmp_path / "data", external={"web": {"data_root": str(tmp_path / "web"), "data": folders}}))


def test_f_test_images_without_a_group_are_named_and_nothing_is_said_for_images(tmp_path):
    rows = [*ROWS, ("c4.jpg", "", "", "test")]
    (fault,) = refused(of_groups(tmp_path / "data", rows))
    assert "1 of 4 test images have no group: c4.jpg" in fault
    assert "data.group" in fault
    check_groups(of_groups(tmp_path / "data", rows, submission={"unit": "image"}))


def test_f_a_sample_and_answers_of_other_groups_are_refused_at_once(tmp_path):
    put_csv(tmp_path / "data/sample.csv", ["patient", "ans"], [("t1", ""), ("t9", "")])
    put_csv(tmp_path / "data/answers.csv", ["patient", "ans"], [("t1", "cat"), ("t2", "bird")])
    config = of_groups(tmp_path / "data", submission={"sample": "sample.csv"}, answers="answers.csv")
    faults = refused(config)
    assert len(faults) == 3
    assert "t2" in faults[0]
    assert "t9" in faults[1]
    assert "bird" in faults[2]


def test_folders_find_the_group_in_the_names_of_test_images(tmp_path):
    files = ["train/cat/p1_1.jpg", "train/dog/p2_1.jpg", "test/t1_1.jpg", "test/t1_2.jpg", "test/sub/t0_1.jpg"]
    data = {"layout": "folders", "test": "test", "group_pattern": r"([a-z]\d)_"}
    config = config_for(class_folders(tmp_path / "data", files), data, submission={"unit": "group"})
    check_groups(config)
    assert answered_names(config, entries(config, "test").frame) == ["t0", "t1"]
    class_folders(tmp_path / "data", ["test/other.jpg"])
    (fault,) = refused(config)
    assert "1 of 4 test images have no group: other.jpg" in fault
    assert "group_pattern" in fault


def test_a_layout_without_groups_of_test_images_is_refused_with_the_configuration():
    values = {"data": {"layout": "demo"}, "models": {"m": {"net": "resnet18"}}, "submission": {"unit": "group"}}
    with pytest.raises(UserError, match=r"submission: unit: data\.layout: demo names no groups of test images"):
        check_config(values)
