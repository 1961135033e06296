"""The unit of all scores, and what is refused: members, splits and answers that do not belong together."""

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from foldvote.ensemble.group_parts import split_groups
from foldvote.ensemble.inputs import evaluation_rows
from foldvote.errors import UserError
from foldvote.evaluation.vote_table import votes_schema
from foldvote.inference.prediction_files import predictions_schema
from foldvote.io.files import write_json
from foldvote.io.parquet import read_record, read_table, write_table
from foldvote.splits.folds import FOLDS, split_sha256
from foldvote.splits.reserve import RESERVE
from support.member_predictions import CLASSES, TWO, Run, answers_file


def test_f52_missing_members_are_named_all_at_once(tmp_path):
    run = Run(tmp_path, models=TWO)
    for member in (("oof", "lite0", 3), ("oof", "resnet", 0), ("test", "lite0", 1)):
        run.path(*member).unlink()
    run.refused(
        "model lite0 fold 3: its out-of-fold predictions are missing",
        "model resnet fold 0: its out-of-fold predictions are missing",
        "model lite0 fold 1: its test predictions are missing",
    )


def test_f52_a_path_that_was_not_given_is_missing_too(tmp_path):
    run = Run(tmp_path, models=TWO)
    paths = [run.path("oof", *member) for member in run.members()]
    run.refused("model lite0 fold 0: its out-of-fold predictions are missing", oof=paths[1:])


@pytest.mark.parametrize("split", [{"reserve": 18}, {"holdout": True, "images": 48}])
def test_two_persons_of_one_group_are_one_unit_of_all_parts_and_intervals(tmp_path, split):
    run = Run(tmp_path, paired=True, **split)
    run.make()
    schema = votes_schema(CLASSES, labelled=True)
    kept_out, validated = run.folds[run.folds["fold"] == RESERVE], run.folds[run.folds["fold"] >= 0]
    for rows, name in ((validated, "oof"), *([(kept_out, "reserve")] if run.reserve else [])):
        table = rows.sort_values("image_id").reset_index(drop=True)
        found = evaluation_rows(table)
        assert len(np.unique(found.groups)) == table["group"].nunique() == len(table) / 2
        parts = split_groups(found.groups, 5, 1)
        assert (table.assign(part=parts).groupby("group")["part"].nunique() == 1).all()
        assert read_table(tmp_path / f"ensemble/{name}.parquet").columns.tolist() == schema.names
    if run.reserve:
        assert run.metrics["reserve"]["groups"] == kept_out["group"].nunique()


def test_surplus_members_are_named(tmp_path):
    run = Run(tmp_path, tests=0)
    run.models["old"] = ("identity",)
    run.member("oof", "old", 2)
    paths = [run.path("oof", *member) for member in [*run.members(), ("old", 2)]]
    run.refused("model old fold 2: its out-of-fold predictions are not part of this run", oof=paths)


def test_f58_another_class_order_is_refused(tmp_path):
    run = Run(tmp_path, models=TWO)
    swapped = [CLASSES[1], CLASSES[0], *CLASSES[2:]]
    run.member("oof", "lite0", 2, classes=swapped)
    run.refused("in its columns the class order differs: class 0 is 'wear-old', but 'wear-young' in classes.json")
    run.member("oof", "lite0", 2)
    run.make()


def test_f58_another_class_list_is_refused(tmp_path):
    run = Run(tmp_path, models=TWO)
    path = run.path("test", "resnet", 1)
    record = read_record(path)
    frame = run.frame("test", "resnet", 1)
    write_table(frame, path, predictions_schema(CLASSES), record=record | {"classes": CLASSES[::-1]})
    run.refused("in its record the class order differs: class 0 is 'not-oldest'")
    write_table(frame, path, predictions_schema(CLASSES), record=record | {"classes": [*CLASSES[:-1], "dog"]})
    run.refused("in its record the classes differ: class 5 is 'dog', but 'not-oldest' in classes.json")
    frame = frame.drop(columns=f"logit_{CLASSES[-1]}")
    write_table(frame, path, predictions_schema(CLASSES[:-1]), record=record | {"classes": CLASSES[:-1]})
    run.refused("in its record are 5 classes instead of the 6", "in its columns are 5 classes instead of the 6")


SPOILED_RECORDS = {
    "another split": ({"split_sha256": "0" * 64}, "was made with another split (000000000000)"),
    "other data": ({"data_sha256": "old data"}, "data_sha256 is old data, but data of oof for most members"),
    "another fold": ({"fold": 0}, "holds the oof predictions of model lite0 fold 0, not the oof predictions of model"),
    "another model": ({"model": "other"}, "holds the oof predictions of model other fold 1"),
    "the test set": ({"split": "test"}, "holds the test predictions of model lite0 fold 1"),
    "other weights": ({"weights_sha256": "new"}, "predicted with other weights than"),
    "other views": ({"views": ["identity"]}, "views is identity, but hflip, identity for most members"),
}


@pytest.mark.parametrize("case", SPOILED_RECORDS)
def test_members_that_do_not_belong_together_are_refused(tmp_path, case):
    changes, phrase = SPOILED_RECORDS[case]
    run = Run(tmp_path)
    only = (lambda frame: frame[frame["view"] == "identity"]) if case == "other views" else None
    run.member("oof", "lite0", 1, spoil=only, record_with=changes)
    run.refused(phrase)


def test_a_record_without_what_is_compared_is_refused(tmp_path):
    run = Run(tmp_path)
    path = run.path("oof", "lite0", 1)
    write_table(run.frame("oof", "lite0", 1), path, predictions_schema(CLASSES), record={"model": "lite0"})
    run.refused("its provenance record lacks fold, split, split_sha256")


SPOILED_ROWS = {
    "missing": (lambda frame: frame[frame["image_id"] != frame["image_id"][0]], "1 ids of fold 1 are missing: 0000"),
    "foreign": (lambda frame: frame.replace({"image_id": {frame["image_id"][0]: "x"}}), "1 ids are not in fold 1: x"),
    "doubled": (lambda frame: pd.concat([frame, frame.iloc[:2]]), "2 images stand twice in a view"),
    "half": (lambda frame: frame.iloc[:-1], "1 images lack one of their 2 views"),
    "views": (lambda frame: frame.replace({"view": {"hflip": "vflip"}}), "holds the views identity, vflip, but its"),
    "label": (lambda frame: frame.assign(label=(frame["label"] + 1) % 6), "6 images have another label than in folds"),
    "null label": (lambda frame: frame.assign(label=None), "6 images have another label than in folds"),
}


@pytest.mark.parametrize("case", SPOILED_ROWS)
def test_rows_that_do_not_fit_the_split_are_refused(tmp_path, case):
    spoil, phrase = SPOILED_ROWS[case]
    run = Run(tmp_path)
    run.member("oof", "lite0", 1, spoil=spoil)
    with pytest.raises(UserError, match=phrase.split(":")[0]) as caught:
        run.make()
    assert any(phrase in fault and "fold=1" in fault for fault in caught.value.faults)
    assert not (tmp_path / "ensemble").exists()


def test_an_image_of_another_fold_is_refused(tmp_path):
    run = Run(tmp_path)
    foreign = run.frame("oof", "lite0", 2).iloc[[0, 6]]
    run.member("oof", "lite0", 1, spoil=lambda frame: pd.concat([frame, foreign]))
    run.refused(f"1 ids are not in fold 1: {foreign['image_id'].iloc[0]}")


def test_f57_logits_that_are_not_finite_and_damaged_files_are_refused_together(tmp_path):
    run = Run(tmp_path)
    path = run.path("oof", "lite0", 0)
    table = pq.read_table(path)
    values = table.column("logit_not-old").to_numpy().copy()
    values[3] = np.nan
    place = table.schema.get_field_index("logit_not-old")
    pq.write_table(table.set_column(place, table.schema.field(place), [values]), path)
    cut = run.path("test", "lite0", 2)
    cut.write_bytes(cut.read_bytes()[:-100])
    run.refused("column logit_not-old is not finite in rows [3]", str(cut))


def test_test_members_that_saw_other_images_are_refused(tmp_path):
    run = Run(tmp_path)
    run.member("test", "lite0", 2, spoil=lambda frame: frame[frame["image_id"] != run.test_ids[4]])
    run.refused(f"1 ids of {run.path('test', 'lite0', 0)} are missing: {run.test_ids[4]}")


def test_a_split_that_is_not_the_certified_one_is_refused(tmp_path):
    run = Run(tmp_path)
    write_json(tmp_path / "certificate.json", {"split_sha256": "0" * 64})
    run.refused("certifies")


def test_a_train_image_in_no_fold_is_named_unless_it_is_a_holdout(tmp_path):
    run = Run(tmp_path, tests=0)
    lost = run.folds["fold"].eq(2) & run.folds["fold"].eq(2).cumsum().eq(1)
    run.folds.loc[lost, "fold"] = -1
    run.digest = split_sha256(run.folds)
    write_table(run.folds, tmp_path / "folds.parquet", FOLDS)
    write_json(tmp_path / "certificate.json", {"split_sha256": run.digest})
    for member in run.members():
        run.member("oof", *member)
    run.refused(f"1 train images are in no fold and get no prediction: {run.folds.loc[lost, 'image_id'].item()}")


def test_more_or_fewer_folds_than_the_split_has_are_refused(tmp_path):
    run = Run(tmp_path, tests=0)
    run.expected = {"lite0": 3}
    run.refused("model lite0 has 3 folds, but the split has 4")


def test_answers_that_are_incomplete_or_no_class_are_refused(tmp_path):
    run = Run(tmp_path)
    rows = [(name, 1) for name in run.test_ids]
    run.refused("1 ids of the test set are missing", answers=answers_file(run, rows[1:]))
    run.refused("1 ids stand twice or more", answers=answers_file(run, [*rows, rows[0]]))
    wrong = [*rows[:8], (rows[8][0], "1.0"), (rows[9][0], "6")]
    run.refused("2 answers are not a whole number from 0 to 5", answers=answers_file(run, wrong))
