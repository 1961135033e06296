"""A split with a reserve: in no fold and no training part, covered by the certificate, and the folds stay whole."""

from pathlib import Path

import numpy as np
import pytest

from foldvote.splits.folds import fold_rows
from foldvote.splits.reserve import RESERVE, reserve_rows
from support.splits import Split, by_group, faults_of, own, persons

LABELS = [0, 1, 2] * 12


@pytest.mark.parametrize("settings", [{"k": 4}, {"k": 4, "repeats": 2}, {"method": "holdout"}])
def test_no_member_learns_from_the_reserve_or_is_scored_on_it(tmp_path: Path, settings: dict) -> None:
    split = Split(tmp_path, persons(LABELS), reserve=0.2, **settings)
    kept_out = set(reserve_rows(split.table)["group"])
    assert len(kept_out) == 6  # 7 of 36, and 2 of each class
    for fold in sorted(number for number in set(split.table["fold"]) if number >= 0):
        training, validation = fold_rows(split.table, fold)
        assert not kept_out & (set(training["group"]) | set(validation["group"]))
        assert len(training) + len(validation) == 3 * (36 - 6)
    found = split.proof["reserve"]
    assert (found["images"], found["groups"], set(found["shared"].values())) == (18, 6, {0})
    assert not split.proof["warnings"]


def test_without_a_reserve_the_certificate_has_no_word_of_it(tmp_path: Path) -> None:
    split = Split(tmp_path, persons(LABELS), k=4)
    assert "reserve" not in split.proof and (split.table["fold"] >= 0).all()


def test_merged_groups_go_together(tmp_path: Path) -> None:
    """One photograph in two groups: both or none are in the reserve."""
    rows = persons(LABELS)
    for first, second in ((0, 3), (9, 12), (30, 33)):
        rows[3 * first]["sha256"] = rows[3 * second]["sha256"]
    split = Split(tmp_path, rows, k=3, reserve=0.4)
    assert split.table.groupby("group")["fold"].nunique().eq(1).all()
    assert split.proof["reserve"]["shared"]["bytes"] == 0


def test_a_users_folds_lose_the_groups_of_the_reserve_and_keep_all_others(tmp_path: Path) -> None:
    table = by_group(LABELS, 3)
    split = Split(tmp_path, persons(LABELS), method="file", file=own(tmp_path, table), k=3, reserve=0.2)
    wanted = dict(zip(table["group"], table["fold"], strict=True))
    kept_out = split.table["fold"] == RESERVE
    assert kept_out.any()
    assert (split.table["fold"] == np.where(kept_out, RESERVE, split.table["group"].map(wanted))).all()


def test_a_reserve_that_leaves_too_few_groups_is_refused(tmp_path: Path) -> None:
    (told,) = faults_of(tmp_path / "x", persons([0, 1, 2] * 4), k=4, reserve=0.2)
    assert told.startswith("folds.reserve: 0.2 of 12 groups leaves no group to keep out")


def test_other_groups_come_with_another_seed_and_the_same_with_the_same(tmp_path: Path) -> None:
    drawn = []
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        (tmp_path / name).mkdir()
        drawn.append(set(reserve_rows(Split(tmp_path / name, persons(LABELS), seed=seed, reserve=0.2).table)["group"]))
    assert drawn[0] == drawn[1] != drawn[2]
