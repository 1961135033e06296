"""One answer per group: chosen and scored with the group as the unit."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import settings as budget
from hypothesis import strategies as st
from sklearn.metrics import f1_score, log_loss, roc_auc_score

from foldvote.config.ensemble import Submission
from foldvote.config.metric_names import shown_metric
from foldvote.data.label_space import named_label_space, write_label_space
from foldvote.ensemble.group_answers import GroupInputs, answer_groups, write_entry_groups
from foldvote.ensemble.headline import group_headline
from foldvote.errors import UserError
from foldvote.evaluation.metric_registry import find_metrics
from foldvote.evaluation.probabilities import softmax
from foldvote.evaluation.vote_table import groups_schema, votes_frame, votes_schema
from foldvote.io.files import read_json, write_json
from foldvote.io.parquet import read_table, write_table
from foldvote.runtime.seeding import generator
from foldvote.splits.folds import FOLDS, split_sha256
from foldvote.splits.reserve import RESERVE

CLASSES = ["healthy", "ill", "very ill"]
SPACE = named_label_space(CLASSES, set())
PROBABILITIES = [f"p_{name}" for name in CLASSES]


class Finished:
    """The files of a finished ensemble of patients with several images each.

    Args:
        root: the results folder.
        patients: how many of the training images, and as many of the test images.
        most: images of a patient, at most.
        telling: only a share of a patient's images show the class, and those clearly.
        reserve: whether the training images are those of a reserve.
        order: a permutation of the rows of all tables is drawn by it.
    """

    def __init__(self, root, patients=60, most=6, telling=None, reserve=False, order=None, seed=0):
        self.root, self.reserve = root, reserve
        draws = generator(seed, "finished")
        self.votes, self.labels = {}, {}
        for split in ("train", "test"):
            sizes = draws.integers(1, most + 1, patients)
            patient = np.repeat(np.arange(patients), sizes)
            label = draws.integers(0, 3, patients)[patient]
            logits = draws.normal(0, 1, (len(label), 3))
            shown = np.ones(len(label)) if telling is None else 5.0 * (draws.random(len(label)) < telling)
            logits[np.arange(len(label)), label] += shown
            frame = pd.DataFrame({"group": [f"{split}-{number:03d}" for number in patient], "label": label})
            frame.insert(0, "image_id", [f"{split}/{number:04d}.png" for number in range(len(frame))])
            frame["fold"] = RESERVE if reserve else patient % 5
            frame = votes_frame(frame.assign(profile=frame["group"]), softmax(logits), logits.argmax(axis=1), SPACE)
            if order is not None:
                frame = frame.sample(frac=1, random_state=order).reset_index(drop=True)
            self.votes[split] = frame
        self.write()

    def write(self, kind="mean"):
        train = self.votes["train"]
        write_label_space(SPACE, self.root / "classes.json")
        for split, frame in self.votes.items():
            schema = votes_schema(CLASSES, labelled=split == "train")
            write_table(frame[schema.names], self.root / f"{split}.parquet", schema, record={"vote": "mean"})
            frame[["image_id", "group"]].to_parquet(self.root / f"{split}_manifest.parquet")
        folds = train[["image_id", "profile", "group", "label", "fold"]].assign(repeat=0, stratum="s")
        digest = split_sha256(folds)
        write_table(folds, self.root / "folds.parquet", FOLDS, record={"split_sha256": digest})
        write_json(self.root / "certificate.json", {"split_sha256": digest})
        write_json(self.root / "weights.json", {"kind": kind})

    def make(self, answers=None, score="macro_f1", tests=True, metrics=("macro_f1",), **submission):
        own = self.root / "train.parquet"
        inputs = GroupInputs(
            oof=own,
            weights=self.root / "weights.json",
            manifest=self.root / "train_manifest.parquet",
            folds=self.root / "folds.parquet",
            certificate=self.root / "certificate.json",
            classes=self.root / "classes.json",
            reserve=own if self.reserve else None,
            test=self.root / "test.parquet" if tests else None,
            test_manifest=self.root / "test_manifest.parquet" if tests else None,
            answers=answers,
        )
        path = self.root / "groups.parquet" if tests else None
        settings = Submission(unit="group", **submission)
        found = find_metrics([*metrics, score])
        answer_groups(inputs, self.root / "scores.json", path, settings, score, 200, None, seed=1, metrics=found)
        return read_json(self.root / "scores.json")

    @property
    def groups(self):
        return read_table(self.root / "groups.parquet", groups_schema(CLASSES), key=("group",))


def test_scores_are_those_of_groups_and_the_intervals_hold_them(tmp_path):
    run = Finished(tmp_path)
    found = run.make(pooling="mean")
    train = run.votes["train"]
    by_group = train.groupby("group")[[*PROBABILITIES, "label"]].mean()
    labels, probabilities = by_group["label"].astype(int), by_group[PROBABILITIES].to_numpy()
    expected = f1_score(labels, probabilities.argmax(axis=1), average="macro")
    for place in (found["answers"], found["poolings"]["mean"]):
        assert place["macro_f1"] == pytest.approx(expected)
        assert place["accuracy"] == pytest.approx((probabilities.argmax(axis=1) == labels).mean())
        assert place["log_loss"] == pytest.approx(log_loss(labels, probabilities))
        low, high = place["intervals"]["macro_f1"]
        assert low < expected < high
    assert (found["groups"], found["images"]) == (60, len(train))
    images = f1_score(train["label"], train["prediction"], average="macro")
    assert expected > images + 0.1  # several images say more than one


def test_the_test_groups_have_one_answer_each_from_all_of_their_images(tmp_path):
    run = Finished(tmp_path)
    found = run.make(pooling="mean")
    groups, test = run.groups, run.votes["test"]
    by_group = test.groupby("group")
    assert groups["group"].tolist() == sorted(test["group"].unique())
    assert groups["images"].tolist() == by_group.size().tolist()
    np.testing.assert_allclose(groups[PROBABILITIES], by_group[PROBABILITIES].mean(), rtol=1e-12)
    assert groups["prediction"].tolist() == by_group[PROBABILITIES].mean().to_numpy().argmax(axis=1).tolist()
    assert (found["test_groups"], found["test_images"]) == (60, len(test))


@budget(max_examples=10, deadline=None)
@given(order=st.integers(0, 2**31), reserve=st.booleans(), pooling=st.sampled_from(["auto", "weighted"]))
def test_the_order_of_the_rows_changes_no_bit(tmp_path_factory, order, reserve, pooling):
    folder = tmp_path_factory.mktemp("rows")
    run = Finished(folder, reserve=reserve)
    scores, groups = run.make(pooling=pooling), run.groups
    shuffled = Finished(folder, reserve=reserve, order=order)
    assert not shuffled.votes["test"].equals(run.votes["test"])
    assert shuffled.make(pooling=pooling) == scores
    pd.testing.assert_frame_equal(shuffled.groups, groups, check_exact=True)


@budget(max_examples=10, deadline=None)
@given(seed=st.integers(0, 2**31), pooling=st.sampled_from(["auto", "mean", "geometric", "noisy_or", "weighted"]))
def test_with_one_image_per_group_the_answers_are_those_of_the_images(tmp_path_factory, seed, pooling):
    run = Finished(tmp_path_factory.mktemp("single"), most=1, seed=seed)
    found = run.make(pooling=pooling)
    test = run.votes["test"].sort_values("group", ignore_index=True)
    names = [*PROBABILITIES, "prediction", "prediction_name"]
    pd.testing.assert_frame_equal(run.groups[names], test[names], check_exact=True, check_dtype=False)
    train = run.votes["train"]
    assert found["answers"]["accuracy"] == (train["label"] == train["prediction"]).mean()
    assert found["chosen"] == ("mean" if pooling == "auto" else pooling)


@pytest.mark.parametrize("reserve", [False, True])
def test_where_few_images_show_the_class_the_mean_is_left(tmp_path, reserve):
    run = Finished(tmp_path, patients=300, most=12, telling=0.2, reserve=reserve)
    found = run.make(score="log_loss")
    chosen, mean = found["poolings"][found["chosen"]], found["poolings"]["mean"]
    assert found["chosen"] != "mean"
    assert chosen["log_loss"] < mean["log_loss"] - 0.05
    assert found["answers"]["log_loss"] == pytest.approx(chosen["log_loss"], abs=0.02)
    assert found["predicted_by"] == ("all members" if reserve else "one member per image")


def test_offsets_of_the_vote_are_fitted_anew_for_groups_and_scored_on_others(tmp_path):
    run, found = Finished(tmp_path, patients=100, telling=0.3), {}
    for kind in ("mean", "mean+expected", "mean+offsets"):
        run.write(kind)
        found[kind] = run.make(pooling="mean")["poolings"]["mean"]
    offsets = [found[kind]["params"].get("offsets") for kind in found]
    assert offsets[0] is None and len(offsets[1]) == len(offsets[2]) == 3 and offsets[1] != offsets[2]
    fitted = found["mean+offsets"]
    assert fitted["optimistic"]["macro_f1"] >= fitted["macro_f1"]


def test_answers_of_groups_are_scored(tmp_path):
    run = Finished(tmp_path)
    truth = run.votes["test"].drop_duplicates("group")
    answers = tmp_path / "answers.csv"
    answers.write_text("ImageID,ans\n" + "".join(f"{row.group},{row.label}\n" for row in truth.itertuples()))
    found = run.make(answers=answers)
    right = truth.set_index("group")["label"].reindex(run.groups["group"]).to_numpy() == run.groups["prediction"]
    assert found["test"][found["chosen"]]["accuracy"] == pytest.approx(right.mean())
    answers.write_text("ImageID,ans\n" + "".join(f"{name},0\n" for name in run.votes["test"]["image_id"]))
    with pytest.raises(UserError, match="the test groups"):
        run.make(answers=answers)


@pytest.mark.parametrize("reserve", [False, True])
@pytest.mark.parametrize("metric", ["roc_auc", "average_precision", "f_beta-2", "top_k-2", "brier"])
def test_any_metric_chooses_the_pooling_and_is_told(tmp_path, metric, reserve):
    run = Finished(tmp_path, patients=100, reserve=reserve)
    truth = run.votes["test"].drop_duplicates("group")
    answers = tmp_path / "answers.csv"
    answers.write_text("ImageID,ans\n" + "".join(f"{row.group},{row.label}\n" for row in truth.itertuples()))
    found = run.make(answers=answers, score=metric, metrics=(metric,))
    assert found["metric"] == metric
    for place in (found["answers"], *found["poolings"].values(), *found["test"].values()):
        low, high = place["intervals"][metric]
        assert low <= place[metric] <= high
    best = (min if metric == "brier" else max)(own[metric] for own in found["poolings"].values())
    assert found["poolings"][found["chosen"]][metric] == pytest.approx(best, abs=0.02)
    assert f"{shown_metric(metric)} {found['answers'][metric]:.3f} (" in group_headline(found)
    if metric == "roc_auc":
        expected = roc_auc_score(
            truth.set_index("group")["label"].reindex(run.groups["group"]).astype(int),
            run.groups[PROBABILITIES],
            multi_class="ovr",
        )
        assert found["test"][found["chosen"]][metric] == pytest.approx(expected)


def test_a_score_that_groups_do_not_define_is_one_line(tmp_path):
    run = Finished(tmp_path)
    for split in ("train", "test"):
        run.votes[split]["label"] = 0
    run.write()
    with pytest.raises(UserError, match=r"vote\.score: roc_auc is not defined"):
        run.make(score="roc_auc")
    found = run.make(metrics=("roc_auc",))
    assert found["answers"]["roc_auc"] is None
    assert "ROC AUC not defined over 60 groups" in group_headline(found)


def test_groups_of_several_classes_are_named_and_nothing_is_written(tmp_path):
    run = Finished(tmp_path)
    train = run.votes["train"]
    row = train.index[train["group"].duplicated()][0]
    train.loc[row, "label"] = (train.loc[row, "label"] + 1) % 3
    run.write()
    with pytest.raises(UserError, match=f"1 groups have different classes: {train.loc[row, 'group']} "):
        run.make()
    assert not (tmp_path / "scores.json").exists()
    assert not (tmp_path / "groups.parquet").exists()


def test_groups_that_share_a_photograph_are_drawn_together_and_answered_apart(tmp_path):
    run = Finished(tmp_path)
    alone = run.make(pooling="mean")["answers"]
    folds = read_table(tmp_path / "folds.parquet", FOLDS)
    folds["group"] = folds["group"].str.replace(r"\d\d(?=\d$)", "x", regex=True)
    digest = split_sha256(folds)
    write_table(folds, tmp_path / "folds.parquet", FOLDS, record={"split_sha256": digest})
    write_json(tmp_path / "certificate.json", {"split_sha256": digest})
    found = run.make(pooling="mean")
    assert found["groups"] == 60
    assert found["answers"]["macro_f1"] == alone["macro_f1"]
    assert found["answers"]["intervals"] != alone["intervals"]


def test_another_row_of_the_leaderboard_is_pooled_by_the_same_rule(tmp_path):
    run = Finished(tmp_path)
    run.make(pooling="weighted")
    files = tmp_path / "test.parquet", tmp_path / "test_manifest.parquet"
    out = tmp_path / "row.parquet"
    write_entry_groups(*files, None, tmp_path / "scores.json", tmp_path / "classes.json", out)
    pd.testing.assert_frame_equal(read_table(out, groups_schema(CLASSES)), run.groups, check_exact=True)


def test_without_test_images_there_are_scores_alone(tmp_path):
    found = Finished(tmp_path).make(tests=False)
    assert "test_groups" not in found
    assert not (tmp_path / "groups.parquet").exists()
