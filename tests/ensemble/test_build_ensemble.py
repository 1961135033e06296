"""The ensemble: what it refuses, what it writes, and that the vote is what the members said."""

from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import f1_score

from foldvote.ensemble.leaderboard import COLUMNS, COST_COLUMNS, TEST_COLUMNS, make_leaderboard, read_timings, summary
from foldvote.errors import UserError
from foldvote.evaluation.probabilities import softmax
from foldvote.inference.prediction_files import LOGIT, predictions_schema
from foldvote.io.files import read_json, write_json
from foldvote.io.parquet import read_record, write_table
from foldvote.runtime.seeding import generator
from foldvote.splits.folds import FOLDS, split_sha256
from support.member_predictions import CLASSES, PROBABILITIES, SCHEME, Run, averaged

TWO = {"lite0": ("identity", "hflip"), "resnet": ("identity",)}


def test_votes_are_the_mean_over_views_then_models_joined_by_id(tmp_path):
    run = Run(tmp_path, models=TWO)
    run.make()
    oof = run.votes("oof")
    once = run.folds[run.folds["repeat"] == 0]
    assert oof["image_id"].tolist() == once["image_id"].tolist()
    assert (oof[["fold", "label"]].to_numpy() == once[["fold", "label"]].to_numpy()).all()
    by_model = [pd.concat(averaged(run.frame("oof", model, fold)) for fold in range(4)) for model in TWO]
    expected = sum(own.loc[oof["image_id"]].to_numpy() for own in by_model) / 2
    np.testing.assert_allclose(oof[PROBABILITIES], expected, rtol=1e-6)
    np.testing.assert_allclose(oof[PROBABILITIES].sum(axis=1), 1, atol=1e-12)
    assert (oof["prediction"] == expected.argmax(axis=1)).all()
    assert oof["prediction_name"].tolist() == [CLASSES[code] for code in oof["prediction"]]

    test = run.votes("test")
    assert test["image_id"].tolist() == run.test_ids
    by_model = [sum(averaged(run.frame("test", model, fold)) for fold in range(4)) / 4 for model in TWO]
    np.testing.assert_allclose(test[PROBABILITIES], sum(by_model).loc[run.test_ids].to_numpy() / 2, rtol=1e-6)
    assert read_record(tmp_path / "ensemble/oof.parquet")["members"]["resnet"]["3"] == "weights of resnet 3"


def test_metrics_are_of_the_whole_oof_and_of_each_members_own_fold(tmp_path):
    run = Run(tmp_path, models=TWO)
    run.make()
    oof, metrics = run.votes("oof"), run.metrics
    assert (metrics["images"], metrics["test_images"], metrics["classes"]) == (24, 10, CLASSES)
    assert "test" not in metrics
    options = {"labels": list(range(6)), "average": "macro", "zero_division": 0}
    expected = f1_score(oof["label"], oof["prediction"], **options)
    assert metrics["oof"]["ensemble"]["macro_f1"] == pytest.approx(expected)
    assert metrics["oof"]["models"]["lite0"]["images"] == 24
    own, rows = averaged(run.frame("oof", "resnet", 2)), run.folds[run.folds["fold"] == 2].set_index("image_id")
    expected = f1_score(rows.loc[own.index, "label"], own.to_numpy().argmax(axis=1), **options)
    assert metrics["oof"]["members"]["resnet"]["2"]["macro_f1"] == pytest.approx(expected)
    assert metrics["oof"]["members"]["resnet"]["2"]["images"] == 6
    assert set(metrics["oof"]["ensemble"]["factors"]) == {"mask", "age"}


def test_f59_an_ensemble_of_one_model_is_that_member_and_identity_alone_is_no_tta(tmp_path):
    run = Run(tmp_path, models={"only": ("identity",)}, k=2)
    run.make()
    oof = run.votes("oof").set_index("image_id")
    for fold in range(2):
        frame = run.frame("oof", "only", fold)
        exact = softmax(frame[[LOGIT + name for name in CLASSES]].to_numpy())
        assert (oof.loc[frame["image_id"], PROBABILITIES].to_numpy() == exact.astype(np.float32)).all()
    single = Run(tmp_path / "single", models={"only": ("identity",)}, k=2, holdout=True)
    single.make()
    frame = single.frame("test", "only", 0)
    exact = softmax(frame[[LOGIT + name for name in CLASSES]].to_numpy())
    assert (single.votes("test")[PROBABILITIES].to_numpy() == exact.astype(np.float32)).all()


def test_f59_weights_are_equal_and_sum_to_one(tmp_path):
    run = Run(tmp_path, models=dict.fromkeys(("a", "b", "c"), ("identity",)), k=2)
    run.make()
    weights = read_json(tmp_path / "ensemble/weights.json")
    assert (weights["kind"], list(weights["weights"])) == ("mean", ["a/identity", "b/identity", "c/identity"])
    assert sum(weights["weights"].values()) == pytest.approx(1, abs=1e-15)


@given(st.integers(0, 2**32))
@settings(max_examples=5, deadline=None)
def test_the_order_of_files_and_rows_changes_no_byte(tmp_path_factory, seed):
    run, draws = Run(tmp_path_factory.mktemp("run"), models=TWO, k=2), generator(seed, "shuffle")
    run.make()
    names = ("ensemble/oof.parquet", "ensemble/test.parquet", "ensemble/metrics.json", "leaderboard.csv")
    before = [(run.root / name).read_bytes() for name in names]
    for split, model, fold in [("oof", "lite0", 1), ("oof", "resnet", 0), ("test", "resnet", 1)]:
        run.member(split, model, fold, spoil=lambda frame: frame.iloc[draws.permutation(len(frame))])
    paths = {split: [run.path(split, *member) for member in run.members()] for split in ("oof", "test")}
    mixed = {split: [own[place] for place in draws.permutation(4)] for split, own in paths.items()}
    run.make(**mixed, expected=dict(reversed(run.expected.items())))
    assert [(run.root / name).read_bytes() for name in names] == before


def test_repeats_are_averaged_and_the_fold_is_that_of_the_first(tmp_path):
    run = Run(tmp_path, k=3, repeats=2)
    run.make()
    oof = run.votes("oof")
    first = run.folds[run.folds["repeat"] == 0].set_index("image_id")
    assert len(oof) == run.metrics["oof"]["models"]["lite0"]["images"] == 24
    assert (oof["fold"] == first.loc[oof["image_id"], "fold"].to_numpy()).all()
    both = pd.concat(averaged(run.frame("oof", "lite0", fold)) for fold in range(6))
    expected = both.groupby(level=0).mean().loc[oof["image_id"]]
    np.testing.assert_allclose(oof[PROBABILITIES], expected, rtol=1e-6)
    assert len(run.leaderboard) == 1 + 1 + 1 + 6


def test_a_holdout_covers_its_validation_part_alone(tmp_path):
    run = Run(tmp_path, holdout=True)
    run.make()
    assert run.votes("oof")["image_id"].tolist() == run.folds.loc[run.folds["fold"] == 0, "image_id"].tolist()
    assert run.metrics["images"] == 6
    assert run.leaderboard["kind"].tolist() == ["ensemble", "vote", "model", "member"]


def test_no_test_set_writes_no_test_votes(tmp_path):
    run = Run(tmp_path, tests=0)
    run.make()
    assert sorted(path.name for path in (tmp_path / "ensemble").iterdir()) == [
        "label_issues.parquet",
        "metrics.json",
        "oof.parquet",
        "reliability.csv",
        "slices.csv",
        "votes.json",
        "weights.json",
    ]
    assert "test_images" not in run.metrics


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
    said, phrase = SPOILED_RECORDS[case]
    run = Run(tmp_path)
    only = (lambda frame: frame[frame["view"] == "identity"]) if case == "other views" else None
    run.member("oof", "lite0", 1, spoil=only, said=said)
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


def answers_file(run, rows):
    path = run.root / "answers.csv"
    path.write_text("ImageID,ans\n" + "".join(f"{name},{answer}\n" for name, answer in rows))
    return path


def test_answers_are_joined_by_id_and_scored(tmp_path):
    run = Run(tmp_path, models=TWO)
    truth = generator(1, "truth").integers(0, 6, 10)
    rows = list(zip(run.test_ids, truth, strict=True))
    run.make(answers=answers_file(run, rows[::-1]))
    test = run.votes("test")
    options = {"labels": list(range(6)), "average": "macro", "zero_division": 0}
    found = run.metrics["test"]
    assert found["ensemble"]["macro_f1"] == pytest.approx(f1_score(truth, test["prediction"], **options))
    assert found["ensemble"]["accuracy"] == pytest.approx(np.mean(truth == test["prediction"]))
    assert set(found["models"]) == set(TWO)
    board = run.leaderboard
    assert tuple(board.columns) == COLUMNS + TEST_COLUMNS + COST_COLUMNS
    assert float(board["test_accuracy"][0]) == pytest.approx(found["ensemble"]["accuracy"], abs=1e-6)
    assert (board.loc[board["kind"] == "member", "test_accuracy"] == "").all()
    named = answers_file(run, [(name, CLASSES[code]) for name, code in rows])
    run.make(answers=named, answer="name")
    assert run.metrics["test"] == found


def test_answers_never_change_a_vote(tmp_path):
    run = Run(tmp_path)
    run.make()
    before = (tmp_path / "ensemble/test.parquet").read_bytes()
    run.make(answers=answers_file(run, [(name, 0) for name in run.test_ids]))
    assert (tmp_path / "ensemble/test.parquet").read_bytes() == before


def test_answers_that_are_incomplete_or_no_class_are_refused(tmp_path):
    run = Run(tmp_path)
    rows = [(name, 1) for name in run.test_ids]
    run.refused("1 ids of the test set are missing", answers=answers_file(run, rows[1:]))
    run.refused("1 ids stand twice or more", answers=answers_file(run, [*rows, rows[0]]))
    wrong = [*rows[:8], (rows[8][0], "1.0"), (rows[9][0], "6")]
    run.refused("2 answers are not a whole number from 0 to 5", answers=answers_file(run, wrong))


def test_leaderboard_has_a_row_for_the_ensemble_each_model_and_each_member(tmp_path):
    run = Run(tmp_path, models=TWO)
    run.make()
    board, metrics = run.leaderboard, run.metrics["oof"]
    assert tuple(board.columns) == COLUMNS + COST_COLUMNS
    assert board["kind"].tolist() == ["ensemble", "vote"] + ["model"] * 2 + ["member"] * 8
    models = board[board["kind"] == "model"]
    assert models["macro_f1"].astype(float).is_monotonic_decreasing
    assert set(models["model"]) == set(TWO)
    members = board[board["kind"] == "member"]
    assert list(zip(members["model"], members["fold"].astype(int), strict=True)) == run.members()
    assert board["images"].tolist() == ["24"] * 4 + ["6"] * 8
    assert board["fit_seconds"].tolist() == ["80.00"] * 2 + ["40.00"] * 2 + ["10.00"] * 8
    assert board["predict_seconds"].tolist() == ["4.00"] * 2 + ["2.00"] * 2 + ["0.50"] * 8
    assert board["macro_f1"][0] == f"{metrics['ensemble']['macro_f1']:.6f}"
    assert board["log_loss"].iloc[-1] == f"{metrics['members']['resnet']['3']['log_loss']:.6f}"


def test_models_stand_by_falling_score_whatever_their_names():
    scores = {"a": 0.2, "b": 0.9, "c": 0.9, "d": 0.5}
    numbers = {"images": 2, "accuracy": 0.5, "log_loss": 1.0, "ece": 0.1, "intervals": {"macro_f1": [0.1, 0.9]}}
    models = {model: numbers | {"macro_f1": value} for model, value in scores.items()}
    members = {model: {str(fold): own for fold in (10, 9)} for model, own in models.items()}
    metrics = {"oof": {"ensemble": models["a"], "models": models, "votes": {}, "members": members}}
    board = make_leaderboard(metrics, {("a", 9): {"train": 1.0}})
    assert board.loc[board["kind"] == "model", "model"].tolist() == ["b", "c", "d", "a"]
    assert board.loc[board["kind"] == "member", "fold"].tolist() == ["9", "10"] * 4
    assert board.loc[board["fit_seconds"] != "", ["model", "fold"]].to_numpy().tolist() == [["a", "9"]]


def test_summary_is_an_aligned_table_of_the_ensemble_and_its_models(tmp_path):
    run = Run(tmp_path, models=TWO)
    run.make(answers=answers_file(run, [(name, 0) for name in run.test_ids]))
    text = summary(run.leaderboard, run.metrics)
    lines = text.splitlines()
    assert lines[0] == "out-of-fold scores: 24 images, 6 classes"
    heads = [
        "macro-F1",
        "95 % of persons",
        "optimistic",
        "accuracy",
        "log-loss",
        "ECE",
        "test macro-F1",
        "test accuracy",
        "fit s",
        "predict s",
    ]
    assert " ".join(lines[1].split()) == " ".join(heads)
    assert lines[2].startswith("ensemble (mean) ")
    assert lines[3].startswith("vote mean ")
    assert {line.split(" (")[0] for line in lines[4:]} == set(TWO)
    assert "(4 folds)" in lines[4]
    assert len({len(line) for line in lines[1:]}) == 1
    assert f"{run.metrics['oof']['ensemble']['macro_f1']:.4f}" in lines[2]


def test_summary_shows_unknown_seconds_as_a_dash(tmp_path):
    run = Run(tmp_path, tests=0)
    run.make(timings=[])
    assert (run.leaderboard["fit_seconds"] == "").all()
    assert summary(run.leaderboard, run.metrics).splitlines()[2].split()[-2:] == ["-", "-"]


@pytest.mark.parametrize("content", [{"seconds": -1}, {"seconds": "3"}, {"seconds": True}, {}, []])
def test_timings_that_are_no_seconds_are_refused(tmp_path, content):
    path = tmp_path / "timings/train/model=a/fold=0.json"
    write_json(path, content)
    with pytest.raises(UserError, match="not a number from 0 up"):
        read_timings([path])


def test_f55_the_test_votes_are_joined_by_id_over_members_in_different_orders(tmp_path):
    run = Run(tmp_path, models=TWO)
    run.make()
    before = run.votes("test")
    for member in [("lite0", 0), ("resnet", 3)]:
        run.member("test", *member, spoil=lambda frame: frame.iloc[::-1])
    run.make()
    after = run.votes("test").set_index("image_id").loc[before["image_id"]].reset_index()
    pd.testing.assert_frame_equal(before, after, check_exact=True)


def test_models_of_some_factors_multiply_to_one_voice_and_are_scored_on_their_own_classes(tmp_path: Path) -> None:
    views = ("identity", "hflip")
    run = Run(tmp_path, {"ages": views, "masks": views, "whole": views}, repeats=2)
    of_class = {name: SCHEME.level_codes(name) for name in SCHEME.factors}
    for model, factor in (("ages", "age"), ("masks", "mask")):
        for split in ("oof", "test"):
            for fold in range(run.expected[model]):

                def same_for_other_factors(frame: pd.DataFrame, levels: np.ndarray = of_class[factor]) -> pd.DataFrame:
                    logits = frame[[LOGIT + name for name in CLASSES]].to_numpy()
                    firsts = [levels.tolist().index(level) for level in levels]
                    return frame.assign(**dict(zip([LOGIT + n for n in CLASSES], logits[:, firsts].T, strict=True)))

                run.member(split, model, fold, spoil=same_for_other_factors, said={"factors": [factor]})
    run.make()
    models = run.metrics["oof"]["models"]
    assert set(models["masks"]["classes"]) == {"wear", "not"}
    assert models["masks"]["factors_learnt"] == ["mask"]
    assert set(models["ages*masks"]["classes"]) == set(CLASSES)
    weights = read_json(tmp_path / "ensemble/weights.json")["weights"]
    assert weights == {f"{voice}/{view}": 0.25 for voice in ("ages*masks", "whole") for view in views}
    kinds = run.leaderboard.set_index("model")["kind"]
    assert kinds["ages*masks"] == "product"
    assert set(kinds[["ages", "masks"]].tolist()) == {"model", "member"}
    fits = run.leaderboard[run.leaderboard["kind"] != "member"].set_index("model")["fit_seconds"].astype(float)
    assert fits["ages*masks"] == fits["ages"] + fits["masks"]
    text = summary(run.leaderboard, run.metrics)
    assert "masks (8 folds, mask alone)" in text
    assert "ages*masks  " in text
