"""Comparison of runs: equal bootstrap draws for all, common images, and errors."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from foldvote.commands.compare_runs import Finished, compare_runs, comparison
from foldvote.data.label_space import LabelSpace
from foldvote.errors import UserError
from support.finished_run import finished_run
from support.member_predictions import MEAN

CLASSES = ("a", "b", "c")
SPACE = LabelSpace(CLASSES)


def finished(name: str, right: float, seed: int = 0, persons: int = 40) -> Finished:
    """A run that is right on a share of its persons' images."""
    draws = np.random.default_rng(seed)
    number = persons * 5
    labels = np.arange(number) % 3
    said = np.where(draws.random(number) < right, labels, (labels + 1) % 3)
    frame = pd.DataFrame(np.full((number, 3), 0.1), columns=[f"p_{name}" for name in CLASSES])
    for code, class_name in enumerate(CLASSES):
        frame[f"p_{class_name}"] = np.where(said == code, 0.8, 0.1)
    frame = frame.assign(label=labels, profile=[f"person {at // 5}" for at in range(number)], prediction=said, fold=0)
    frame["group"] = frame["profile"]
    return Finished(name, "mean", SPACE, "macro_f1", frame.set_index(pd.Index([f"{at}.jpg" for at in range(number)])))


def cells(lines: list[str], name: str) -> str:
    return next(line for line in lines if line.startswith(name))


def test_runs_stand_by_falling_score_and_a_clear_loser_never_wins() -> None:
    lines = comparison([finished("weak", 0.4), finished("strong", 0.9, seed=1)])
    assert lines[0] == "out-of-fold, 200 images of 40 persons"
    assert [line.split()[0] for line in lines[2:4]] == ["strong", "weak"]
    assert cells(lines, "weak").endswith(" 0%")
    assert not cells(lines, "strong").endswith("%")


def test_a_run_against_itself_cannot_be_told_apart() -> None:
    lines = comparison([finished("one", 0.7), finished("two", 0.7)])
    assert cells(lines, "two").endswith("+0.000 (+0.000 to +0.000)     50%")


def test_only_common_images_count_and_the_order_of_rows_does_not() -> None:
    one, two = finished("one", 0.7), finished("two", 0.8, seed=3)
    shuffled = Finished("two", "mean", SPACE, "macro_f1", two.votes.sample(frac=1, random_state=1))
    assert comparison([one, shuffled]) == comparison([one, two])
    part = Finished("two", "mean", SPACE, "macro_f1", two.votes.iloc[:100])
    assert comparison([one, part])[0] == "out-of-fold, 100 images of 20 persons, which all of these runs judged"


def test_what_cannot_be_compared_is_refused() -> None:
    one, two = finished("one", 0.7), finished("two", 0.7)
    with pytest.raises(UserError, match="two: has other classes than one"):
        comparison([one, Finished("two", "mean", LabelSpace(("a", "b")), "macro_f1", two.votes)])
    with pytest.raises(UserError, match="one, two: no image in common"):
        comparison([one, Finished("two", "mean", SPACE, "macro_f1", two.votes.rename(index=lambda name: f"x{name}"))])
    relabelled = two.votes.assign(label=two.votes["label"].where(two.votes["label"] != 2, 1), profile="p")
    with pytest.raises(UserError) as caught:
        comparison([one, Finished("two", "mean", SPACE, "macro_f1", relabelled)])
    assert [fault.partition(";")[0] for fault in caught.value.faults] == [
        "two: labels of 66 images differ from one",
        "two: persons of 200 images differ from one",
    ]


def test_folders_are_read_and_one_without_a_run_is_told(tmp_path: Path) -> None:
    run = finished_run(tmp_path, settings=MEAN)
    told, code = compare_runs([], lambda: str(tmp_path))
    assert code == 0
    assert f"{run.metrics['oof']['ensemble']['macro_f1']:.4f}" in told
    assert f"{tmp_path} (mean)" in told
    told, code = compare_runs([str(tmp_path), str(tmp_path / "none")], lambda: "")
    assert code == 1
    assert "none: holds no finished run" in told


def test_two_persons_of_one_group_are_drawn_together(tmp_path: Path) -> None:
    one, two = finished("one", 0.7), finished("two", 0.8, seed=1)
    pair = one.votes["profile"].str.removeprefix("person ").astype(int) // 2
    joined = replace(two, votes=two.votes.assign(group=pair.astype(str)))
    lines = comparison([one, joined])
    assert lines[0] == "out-of-fold, 200 images of 20 persons"
    assert sorted(comparison([joined, one])[2:4]) == sorted(lines[2:4]) != sorted(comparison([one, two])[2:4])
    run = finished_run(tmp_path, settings=MEAN, paired=True)
    groups = run.folds["group"].nunique()
    assert groups < len(run.folds)
    assert f"{len(run.folds)} images of {groups} persons" in compare_runs([str(tmp_path)], lambda: "")[0]
    run.folds.iloc[1:].to_parquet(tmp_path / "folds/folds.parquet")
    assert "lacks images of ensemble/oof.parquet: 000000/mask 0; " in compare_runs([str(tmp_path)], lambda: "")[0]


def test_runs_of_one_main_metric_are_compared_by_it() -> None:
    one, two = (replace(finished(name, right), metric="log_loss") for name, right in (("weak", 0.4), ("strong", 0.9)))
    lines = comparison([one, two])
    assert lines[1].split()[:2] == ["run", "log-loss"]
    assert [line.split()[0] for line in lines[2:4]] == ["strong", "weak"]
    assert lines[1].count("log-loss") == 1 and "macro-F1" in lines[1]
    assert comparison([one, replace(two, metric="roc_auc")])[1].split()[:2] == ["run", "macro-F1"]
    own = [replace(run, metric="my_metric") for run in (one, two)]
    assert comparison(own)[1].split()[:2] == ["run", "macro-F1"]
