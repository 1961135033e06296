"""The split in which every image is learnt from, and those of a learning curve over groups."""

from pathlib import Path

import pandas as pd
import pytest

from foldvote.errors import UserError
from foldvote.io.files import read_json
from foldvote.splits.folds import fold_rows, read_folds
from foldvote.splits.refit_split import curve_split, everyone, write_curve_split, write_refit_split
from foldvote.splits.reserve import RESERVE
from support.splits import Split, persons

LABELS = [0, 1, 2] * 20
SHARES = [0.5, 0.65, 0.8]
SETTINGS = [{"k": 4}, {"k": 3, "repeats": 2}, {"k": 3, "reserve": 0.2}, {"method": "holdout"}]


@pytest.mark.parametrize(
    "settings", [{"k": 4}, {"k": 3, "repeats": 2}, {"k": 3, "reserve": 0.2}, {"method": "holdout"}]
)
def test_every_image_is_learnt_from_and_none_validated(tmp_path: Path, settings: dict) -> None:
    split = Split(tmp_path, persons(LABELS), **settings)
    write_refit_split(split.folds, split.certificate, tmp_path / "whole.parquet", tmp_path / "whole.json")
    whole, digest = read_folds(tmp_path / "whole.parquet", tmp_path / "whole.json")
    assert digest != split.digest and read_json(tmp_path / "whole.json")["drawn_from"] == split.digest
    for number in (0, 7):
        learnt, validated = fold_rows(whole, number)
        assert learnt["image_id"].tolist() == sorted(set(split.table["image_id"])) and validated.empty


def test_a_split_that_validates_has_no_other_folds_all_the_same(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="there is no fold 7"):
        fold_rows(Split(tmp_path, persons(LABELS), k=4).table, 7)


@pytest.mark.parametrize(
    "settings", [{"k": 4}, {"k": 3, "repeats": 2}, {"k": 3, "reserve": 0.2}, {"method": "holdout"}]
)
def test_a_fold_of_a_curve_is_scored_on_the_same_images_and_learns_from_nested_shares(
    tmp_path: Path, settings: dict
) -> None:
    table = Split(tmp_path, persons(LABELS), **settings).table
    first = table[table["repeat"] == 0]
    shares = [*SHARES, 1.0]
    drawn = [curve_split(table, share, seed=1) for share in shares]
    for fold in sorted(number for number in set(first["fold"]) if number >= 0):
        training, validation = fold_rows(table, fold)
        wanted = training["group"].nunique()
        before: set[str] = set()
        for share, own in zip(shares, drawn, strict=True):
            learnt, scored = fold_rows(own, fold)
            assert scored["image_id"].tolist() == validation["image_id"].tolist()
            groups = set(learnt["group"])
            assert len(groups) == round(share * wanted) and before <= groups <= set(training["group"])
            by_stratum = learnt.groupby("stratum")["group"].nunique() / training.groupby("stratum")["group"].nunique()
            assert (by_stratum - share).abs().max() < 0.15
            kept_out = own[(own["repeat"] == fold) & (own["fold"] == RESERVE)]
            assert set(kept_out["image_id"]) == set(table.loc[table["fold"] == RESERVE, "image_id"])
            undrawn = first[~first["image_id"].isin(own.loc[own["repeat"] == fold, "image_id"])]
            assert set(undrawn["group"]) == set(training["group"]) - groups
            assert len(learnt) + len(scored) + len(kept_out) + len(undrawn) == len(first)
            before = groups


def test_other_groups_come_with_another_seed_and_the_same_with_the_same(tmp_path: Path) -> None:
    table = Split(tmp_path, persons(LABELS), k=4).table
    same, again, other = (curve_split(table, 0.5, seed) for seed in (1, 1, 2))
    pd.testing.assert_frame_equal(same, again)
    assert not same.equals(other)


def test_the_order_of_the_rows_changes_no_group(tmp_path: Path) -> None:
    table = Split(tmp_path, persons(LABELS), k=4).table
    key = ["repeat", "image_id"]
    mixed = curve_split(table.sample(frac=1, random_state=3), 0.5, 1).sort_values(key, ignore_index=True)
    pd.testing.assert_frame_equal(curve_split(table, 0.5, 1).sort_values(key, ignore_index=True), mixed)


def test_the_certificate_says_how_many_groups_each_fold_learns_from(tmp_path: Path) -> None:
    split = Split(tmp_path, persons(LABELS), k=4)
    made = tmp_path / "curve.parquet", tmp_path / "curve.json"
    write_curve_split(split.folds, split.certificate, 0.5, 1, *made)
    table, _ = read_folds(*made)
    about = read_json(made[1])
    assert about["share"] == 0.5 and about["data_sha256"] == split.proof["data_sha256"]
    assert [one["groups"] for one in about["folds"]] == [
        fold_rows(table, fold)[0]["group"].nunique() for fold in range(4)
    ]


def test_too_few_groups_for_a_curve_are_refused_by_fold(tmp_path: Path) -> None:
    split = Split(tmp_path, persons([0, 1, 2] * 4), k=3)
    with pytest.raises(UserError) as refused:
        write_curve_split(split.folds, split.certificate, 0.5, 1, tmp_path / "c.parquet", tmp_path / "c.json")
    assert len(refused.value.faults) == 3
    assert refused.value.faults[0].startswith("refit.curve: fold 0 learns from 8 groups, and a learning curve needs 10")
    assert not (tmp_path / "c.parquet").exists()


def test_everyone_keeps_labels_and_groups(tmp_path: Path) -> None:
    table = Split(tmp_path, persons(LABELS), k=3, repeats=2).table
    whole = everyone(table).set_index("image_id")
    for name in ("label", "group", "stratum"):
        assert (whole[name] == table.drop_duplicates("image_id").set_index("image_id")[name].reindex(whole.index)).all()
