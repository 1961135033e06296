"""One network of a student against its teachers: which predictions are compared, and with which intervals."""

from dataclasses import replace

import numpy as np
import pytest

from foldvote.ensemble.inputs import EnsembleInputs
from foldvote.ensemble.students import students_rows, write_students
from foldvote.evaluation.metrics import accuracy, macro_f1
from foldvote.io.csv_files import read_csv
from support.member_predictions import LABEL_SPACE, Run
from support.simulated_members import single_members


def test_the_vote_of_all_members_stands_last_and_the_differences_are_to_it():
    single = single_members({"good": 2.0, "other": 2.0, "student": 1.6}, views=2, members=3)
    table = students_rows(single, "student", ["other", "good"], 200, 1)
    assert table[["predicts", "models", "folds", "networks"]].to_numpy().tolist() == [
        ["student", "student", 1, 1],
        ["student", "student", 3, 3],
        ["teachers", "good+other", 1, 2],
        ["teachers", "good+other", 3, 6],
    ]
    members = single.probabilities[:, 4:].mean(axis=1)  # of the student, over its views
    labels, classes = single.rows.labels, len(LABEL_SPACE.classes)
    vote = single.probabilities[:, :4].mean(axis=(0, 1)).argmax(axis=1)
    one, both = np.mean([accuracy(labels, own.argmax(axis=1)) for own in members]), accuracy(labels, vote)
    first, last = table.iloc[0], table.iloc[-1]
    assert first["accuracy"] == pytest.approx(one) and last["accuracy"] == pytest.approx(both)
    assert first["accuracy_difference"] == pytest.approx(one - both)
    assert first["accuracy_difference_low"] < one - both < first["accuracy_difference_high"] < 0
    assert last["macro_f1"] == pytest.approx(macro_f1(labels, vote, classes))
    zero = [name for name in table if "difference" in name]
    assert (last[zero] == 0).all()
    width = first["accuracy_difference_high"] - first["accuracy_difference_low"]
    assert width < first["accuracy_high"] - first["accuracy_low"] + last["accuracy_high"] - last["accuracy_low"]
    assert (table["images"] == 300).all() and (table["groups"] == 150).all()


def test_out_of_fold_an_image_has_one_network_of_each_side():
    single = replace(single_members({"teacher": 2.0, "student": 2.0}, members=1), part="oof")
    table = students_rows(single, "student", ["teacher"], 100, 1)
    assert table["predicts"].tolist() == ["student", "teachers"]
    assert (table["networks"] == 1).all() and (table["scored_on"] == "oof").all()


@pytest.mark.parametrize("reserve", [12, 0])
def test_the_vote_of_all_folds_is_compared_on_the_reserve_and_single_networks_out_of_fold(tmp_path, reserve, capsys):
    run = Run(tmp_path, models={"lite0": ("identity",), "student": ("identity",)}, reserve=reserve)
    oof, kept_out = ([run.path(part, *member) for member in run.members()] for part in ("oof", "reserve"))
    inputs = EnsembleInputs(
        oof=oof,
        reserve=kept_out if reserve else [],
        test=[],
        folds=tmp_path / "folds.parquet",
        certificate=tmp_path / "certificate.json",
        classes=tmp_path / "classes.json",
    )
    path = tmp_path / "students.csv"
    write_students(inputs, {"student": ["lite0"]}, run.expected, 50, 1, path)
    table = read_csv(path)
    parts = ["reserve"] * 4 if reserve else []
    assert table["scored_on"].tolist() == [*parts, "oof", "oof"]
    assert table["networks"].tolist() == [*(["1", "4", "1", "4"] if reserve else []), "1", "1"]
    printed = capsys.readouterr()
    assert ("set folds.reserve" in printed.out + printed.err) == (not reserve)
