"""Images that are only trained on: in no fold and no reserve, and with no member that is scored on their group."""

from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from foldvote.config.folds import Folds
from foldvote.data.label_space import LabelSpace
from foldvote.data.manifest_table import ONLY, WEIGHT
from foldvote.errors import UserError
from foldvote.inference.prediction_files import fold_count_faults
from foldvote.io.files import read_json, write_json
from foldvote.io.parquet import read_record, read_table, write_table
from foldvote.splits.folds import FOLDS, WEIGHTED_FOLDS, check_split, fold_rows, folds_schema, read_folds, split_sha256
from foldvote.splits.refit_split import write_curve_split, write_refit_split
from foldvote.splits.reserve import RESERVE, reserve_rows
from foldvote.splits.train_only import TRAIN_ONLY, learnt_rows, scored_rows
from support.splits import Row, Split, faults_of, persons
from support.tiny_member import manifest_row

LABELS = [0, 1, 2] * 8
SETTINGS = [{"k": 4}, {"k": 3, "repeats": 2, "reserve": 0.25}, {"method": "holdout", "fraction": 0.25}]


def external(group: str, name: str, label: int = 0, sha256: str | None = None) -> Row:
    """The row of an image that is only trained on; with `sha256` it is a copy of another file."""
    return manifest_row(f"external/{group}-{name}.png", group, label, sha256 or f"external-{group}-{name}")


def with_roles(rows: list[Row], more: list[Row]) -> list[Row]:
    return [row | {ONLY: False} for row in rows] + [row | {ONLY: True} for row in more]


# Of an external image: whose group it bears (persons 0 to 23, strangers from 24), and whose file it copies, if any.
externals = st.lists(st.tuples(st.integers(0, 30), st.none() | st.integers(0, 23)), min_size=1, max_size=12)


@given(externals, st.sampled_from(SETTINGS), st.integers(0, 99))
@settings(deadline=None, max_examples=60)
def test_no_member_learns_from_an_external_image_of_a_person_or_file_that_it_is_scored_on(
    drawn: list[tuple[int, int | None]], values: dict, seed: int
) -> None:
    rows = persons(LABELS)
    more = [
        external(f"p{group:03d}", str(number), number % 3, None if copied is None else f"{copied:03d}-1")
        for number, (group, copied) in enumerate(drawn)
    ]
    with TemporaryDirectory() as folder:
        split = Split(Path(folder), with_roles(rows, more), seed=seed, **values)
    manifest = pd.DataFrame(rows + more).set_index("image_id")  # groups and files as in the data, before any merging
    kept_out, outside = set(reserve_rows(split.table)["image_id"]), {str(row["image_id"]) for row in more}
    assert not outside & kept_out
    folds = sorted(number for number in set(split.table["fold"]) if number >= 0)
    for fold in folds:
        training, validation = (set(part["image_id"]) for part in fold_rows(split.table, fold))
        assert not outside & validation
        scored_on = manifest.loc[sorted(validation | kept_out)]
        learnt = manifest.loc[sorted(training)]
        assert not set(learnt["group"]) & set(scored_on["group"])
        assert not set(learnt["sha256"]) & set(scored_on["sha256"])
        lost = outside - training
        groups = split.table.set_index("image_id")["group"].to_dict()
        assert {groups[name] for name in lost} <= {groups[name] for name in validation | kept_out}  # no other is lost
        counted = split.proof["train_only"]["kept_out"][fold]
        assert (counted["fold"], counted["images"]) == (fold, len(lost))
        assert set(split.proof["folds"][fold]["shared"].values()) == {0}
    learnt_by_some = learnt_rows(split.table)["image_id"].tolist()
    assert sorted(learnt_by_some) == sorted(
        set().union(*(fold_rows(split.table, fold)[0]["image_id"] for fold in folds))
    )
    assert not set(manifest.loc[learnt_by_some, "group"]) & set(manifest.loc[sorted(kept_out), "group"])
    assert not fold_count_faults(split.table, {"m": len(folds)})
    assert split.proof["images"] == len(rows)


@pytest.mark.parametrize("values", SETTINGS)
def test_external_images_of_strangers_change_no_fold_and_reach_every_member(tmp_path: Path, values: dict) -> None:
    (tmp_path / "with").mkdir()
    plain = Split(tmp_path, persons(LABELS), **values)
    more = [external(f"stranger{number}", "a", number % 3) for number in range(5)]
    split = Split(tmp_path / "with", with_roles(persons(LABELS), more), **values)
    others = split.table[split.table["fold"] != TRAIN_ONLY].reset_index(drop=True)
    pd.testing.assert_frame_equal(others, plain.table)
    for fold in sorted(number for number in set(plain.table["fold"]) if number >= 0):
        assert {str(row["image_id"]) for row in more} <= set(fold_rows(split.table, fold)[0]["image_id"])
    same = ("images", "groups", "strata", "classes", "warnings")
    assert {name: split.proof[name] for name in same} == {name: plain.proof[name] for name in same}
    assert split.proof["train_only"] | {"kept_out": []} == {
        "images": 5,
        "groups": 5,
        "shared_groups": 0,
        "kept_out": [],
    }


def test_without_external_images_nothing_is_said_of_them(tmp_path: Path) -> None:
    (tmp_path / "roles").mkdir()
    plain = Split(tmp_path, persons(LABELS), k=4)
    split = Split(tmp_path / "roles", with_roles(persons(LABELS), []), k=4)
    assert plain.folds.read_bytes() == split.folds.read_bytes() and plain.proof == split.proof
    assert "train_only" not in plain.proof


def test_a_class_of_external_images_alone_is_learnt_and_a_warning_says_that_it_is_never_scored(tmp_path: Path) -> None:
    space = LabelSpace(("blue", "green", "red", "rare"))
    more = [manifest_row("e/1.png", "e", 2, "e1") | {"label": 3, "class_name": "rare"}]
    split = Split(tmp_path, with_roles(persons(LABELS), more), space, k=4)
    assert all(3 in set(fold_rows(split.table, fold)[0]["label"]) for fold in range(4))
    (told,) = split.proof["warnings"]
    assert told.startswith("class rare has only images that are train_only: it is learnt and never scored")
    (told,) = faults_of(tmp_path / "x", with_roles(persons(LABELS), more), space, k=4, on_rare="error")
    assert "class rare has only images that are train_only" in told


def test_a_class_of_one_fold_is_not_called_unseen_where_external_images_show_it(tmp_path: Path) -> None:
    labels = [0, 1] * 8 + [2]
    more = [external(f"s{number}", "a", 2) for number in range(2)]
    (tmp_path / "with").mkdir()
    assert "never saw" in Split(tmp_path, persons(labels), k=4).proof["warnings"][0]
    (told,) = Split(tmp_path / "with", with_roles(persons(labels), more), k=4).proof["warnings"]
    assert "where it is not scored" in told


def sealed(split: Split, table: pd.DataFrame) -> None:
    """Write another table and make the digest of the certificate fit it."""
    digest = split_sha256(table)
    schema = folds_schema(table.columns)
    write_table(table, split.folds, schema, record={"split_sha256": digest})
    write_json(split.certificate, read_json(split.certificate) | {"split_sha256": digest})


def _one(split: Split, kind: int) -> pd.Series:
    return split.table.index == split.table.index[split.table["fold"] == kind][0]


Change = Callable[[Split], pd.DataFrame]
CHANGES: list[tuple[Change, str]] = [
    (lambda split: split.table.assign(fold=split.table["fold"].mask(_one(split, TRAIN_ONLY), 1)), "train_only"),
    (lambda split: split.table.assign(fold=split.table["fold"].mask(_one(split, 0), TRAIN_ONLY)), "train_only"),
    (lambda split: split.table[~_one(split, TRAIN_ONLY)], "not in every repeat"),
    (lambda split: split.table.assign(group=split.table["group"].mask(_one(split, TRAIN_ONLY), "new")), "train_only"),
    (lambda split: split.table.assign(fold=split.table["fold"].mask(_one(split, TRAIN_ONLY), RESERVE)), "train_only"),
]


@pytest.mark.parametrize(("change", "told"), CHANGES, ids=["validated", "unscored", "gone", "renamed", "reserved"])
def test_a_table_that_was_tampered_with_is_refused_even_with_its_digest(
    tmp_path: Path, change: Change, told: str
) -> None:
    more = [external("p003", "a"), external("stranger", "b")]
    split = Split(tmp_path, with_roles(persons(LABELS), more), k=3, repeats=2)
    table = change(split).astype({"fold": "int8"}).reset_index(drop=True)
    write_table(table, split.folds, FOLDS, record={})
    with pytest.raises(UserError):
        read_folds(split.folds, split.certificate)
    sealed(split, table)
    with pytest.raises(UserError, match=told):
        read_folds(split.folds, split.certificate)


def test_weights_are_in_the_split_and_in_its_digest(tmp_path: Path) -> None:
    rows = [row | {WEIGHT: 1.0 + number % 2} for number, row in enumerate(persons(LABELS))]
    split = Split(tmp_path, rows, k=3)
    expected = {row["image_id"]: row[WEIGHT] for row in rows}
    assert split.table.set_index("image_id")[WEIGHT].to_dict() == expected
    assert read_record(split.folds)["split_sha256"] == split.digest
    write_table(split.table.assign(**{WEIGHT: 1.0}), split.folds, WEIGHTED_FOLDS, record={})
    with pytest.raises(UserError, match="is not the split"):
        read_folds(split.folds, split.certificate)
    write_table(split.table.drop(columns=WEIGHT), split.folds, FOLDS, record={})
    with pytest.raises(UserError, match="is not the split"):
        read_folds(split.folds, split.certificate)


def test_a_split_needs_images_that_are_scored(tmp_path: Path) -> None:
    rows = [row | {ONLY: True} for row in persons(LABELS)]
    (told,) = faults_of(tmp_path / "x", rows, k=3)
    assert "all images are train_only" in told
    assert read_table(tmp_path / "x/manifest.parquet")[ONLY].all()


def test_the_early_check_splits_the_images_that_are_scored_alone(tmp_path: Path) -> None:
    rows = with_roles(persons([0, 1] * 2), [external(f"s{number}", "a") for number in range(9)])
    check_split(pd.DataFrame(rows), Folds(k=2), 1)
    with pytest.raises(UserError, match=r"lower folds\.k to 2"):
        check_split(pd.DataFrame(rows), Folds(k=4), 1)


def test_networks_of_all_groups_and_of_a_curve_learn_from_external_images_as_well(tmp_path: Path) -> None:
    groups = [f"p{number:03d}" for number in (0, 5)] + ["stranger"]
    rows = with_roles(persons([0, 1, 2] * 20), [external(group, str(at)) for at, group in enumerate(groups)])
    split = Split(tmp_path, rows, k=3, reserve=0.1)
    write_refit_split(split.folds, split.certificate, tmp_path / "whole.parquet", tmp_path / "whole.json")
    whole, _ = read_folds(tmp_path / "whole.parquet", tmp_path / "whole.json")
    assert set(fold_rows(whole, 1)[0]["group"]) == set(split.table["group"])
    write_curve_split(split.folds, split.certificate, 0.5, 7, tmp_path / "half.parquet", tmp_path / "half.json")
    half, _ = read_folds(tmp_path / "half.parquet", tmp_path / "half.json")
    for fold in range(3):
        learnt, validated = fold_rows(half, fold)
        assert "stranger" in set(learnt["group"])
        assert not set(learnt["group"]) & set(validated["group"])


def only_learnt(folds: pd.DataFrame, fold: int) -> set[str]:
    learnt = fold_rows(folds, fold)[0]
    return set(learnt.loc[learnt["fold"] == TRAIN_ONLY, "image_id"])


@pytest.mark.parametrize("values", SETTINGS)
@pytest.mark.parametrize("share", [0.5, 0.8])
def test_every_share_of_a_curve_learns_from_the_external_images_of_the_member_of_its_fold(
    tmp_path: Path, values: dict, share: float
) -> None:
    more = [external(f"p{number:03d}", "a") for number in range(60)] + [external("stranger", "a")]
    split = Split(tmp_path, with_roles(persons([0, 1, 2] * 20), more), **values)
    made = tmp_path / "curve.parquet", tmp_path / "curve.json"
    write_curve_split(split.folds, split.certificate, share, 7, *made)
    drawn, _ = read_folds(*made)
    for about in read_json(made[1])["folds"]:
        fold, groups = about["fold"], scored_rows(fold_rows(split.table, about["fold"])[0])["group"].nunique()
        assert only_learnt(drawn, fold) == only_learnt(split.table, fold)
        assert about["groups"] == round(share * groups) < groups
        assert about["images"] == 3 * about["groups"]
