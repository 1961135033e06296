"""The split: whole groups, balanced and repeatable; too few groups are named."""

import itertools
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from foldvote.config.folds import Folds
from foldvote.data.label_space import factor_label_space, read_label_space
from foldvote.errors import UserError
from foldvote.splits.folds import UNVALIDATED, fold_rows, make_folds, split_sha256
from support.splits import Row, Split, faults_of, persons
from support.tiny_member import LABEL_SPACE, manifest_row, write_manifest

# --- what holds for every split


@st.composite
def tables(draw: st.DrawFn) -> list[Row]:
    """Groups of one to four images, of one class each or of mixed classes."""
    mixed = draw(st.booleans())
    rows = []
    for number in range(draw(st.integers(2, 24))):
        label = draw(st.integers(0, 2))
        for shot in range(draw(st.integers(1, 4))):
            own = draw(st.integers(0, 2)) if mixed else label
            rows.append(manifest_row(f"{number}/{shot}", f"g{number}", own, f"{number}-{shot}"))
    return rows


@given(tables(), st.integers(2, 5), st.integers(1, 3), st.integers(0, 2**53 - 1), st.randoms(use_true_random=False))
@settings(max_examples=12, deadline=None)
def test_every_image_once_a_repeat_and_no_group_in_two_folds(
    tmp_path_factory: pytest.TempPathFactory, rows: list[Row], k: int, repeats: int, seed: int, random: object
) -> None:
    folder = tmp_path_factory.getbasetemp()
    options = {"k": k, "repeats": repeats, "seed": seed}
    try:
        split = Split(folder, rows, **options)
    except UserError as refused:
        groups, labels = {row["group"] for row in rows}, [row["label"] for row in rows]
        whole = len({(row["group"], row["label"]) for row in rows}) == len(groups)
        units = list(dict.fromkeys((row["group"], row["label"]) for row in rows)) if whole else list(enumerate(labels))
        largest = max(sum(label == wanted for _, label in units) for wanted in range(3))
        assert k > len(groups) or largest < k or (not whole and "has no images; lower folds.k" in str(refused))
        return
    table = split.table
    for repeat in range(repeats):
        part = table[table["repeat"] == repeat]
        assert sorted(part["image_id"]) == sorted(row["image_id"] for row in rows)
        assert (part.groupby("group")["fold"].nunique() == 1).all()
        assert set(part["fold"]) == set(range(repeat * k, (repeat + 1) * k))
    assert all(not any(fold["shared"].values()) for fold in split.proof["folds"])
    assert sum(fold["validation"]["images"] for fold in split.proof["folds"]) == repeats * len(rows)
    before = split.folds.read_bytes()
    random.shuffle(rows)
    assert Split(folder, rows, **options).folds.read_bytes() == before


@given(st.lists(st.integers(0, 2), min_size=10, max_size=60), st.integers(2, 5), st.integers(0, 99))
@settings(max_examples=10, deadline=None)
def test_each_stratum_is_spread_evenly_over_the_folds(
    tmp_path_factory: pytest.TempPathFactory, labels: list[int], k: int, seed: int
) -> None:
    assume(max(labels.count(label) for label in range(3)) >= k)
    split = Split(tmp_path_factory.getbasetemp(), persons(labels, images=2), k=k, seed=seed)
    counts = split.table.drop_duplicates("group").groupby(["label", "fold"]).size().unstack(fill_value=0)
    assert (counts.max(axis=1) - counts.min(axis=1) <= 1).all()
    for entry in split.proof["strata"]:
        assert sum(entry["by_fold"]) == entry["groups"] == labels.count(LABEL_SPACE.classes.index(entry["stratum"]))
        assert all(abs(number - entry["target_per_fold"]) < 1.01 for number in entry["by_fold"])
    for code, entry in enumerate(split.proof["classes"]):
        assert entry["class"] == LABEL_SPACE.classes[code] and sum(entry["by_fold"]) == 2 * labels.count(code)


def test_mixed_groups_are_balanced_too(tmp_path: Path) -> None:
    draws = np.random.default_rng(0)
    rows = [
        manifest_row(f"{number}/{shot}", f"g{number}", int(label), f"{number}-{shot}")
        for number in range(60)
        for shot, label in enumerate(draws.choice(3, size=4, p=[0.6, 0.3, 0.1]))
    ]
    split = Split(tmp_path, rows, k=4)
    assert split.proof["method"] == "StratifiedGroupKFold over images"
    counts = split.table.groupby(["label", "fold"]).size().unstack(fill_value=0)
    assert (counts.max(axis=1) - counts.min(axis=1) <= 3).all()


def test_f48_same_seed_same_split_other_seed_another(tmp_path: Path) -> None:
    rows = persons([0, 1, 2] * 10)
    digests = [Split(tmp_path, rows, seed=seed, k=5).digest for seed in (0, 1, 2, 3, 3)]
    assert len(set(digests[:4])) == 4 and digests[3] == digests[4]


def test_repeats_are_different_splits(tmp_path: Path) -> None:
    split = Split(tmp_path, persons([0, 1, 2] * 10), k=5, repeats=3)
    folds = [split.table[split.table["repeat"] == repeat].set_index("image_id")["fold"] % 5 for repeat in range(3)]
    assert all((a != b).any() for a, b in itertools.combinations(folds, 2))
    for fold in range(15):
        training, validation = fold_rows(split.table, fold)
        assert set(training["repeat"]) == set(validation["repeat"]) == {fold // 5}
        assert len(training) + len(validation) == 90
        assert not set(training["group"]) & set(validation["group"])
        assert training["image_id"].is_monotonic_increasing and validation["image_id"].is_monotonic_increasing
    with pytest.raises(UserError, match="there is no fold 15; the split has folds 0 to 14"):
        fold_rows(split.table, 15)


def test_the_first_repeat_does_not_depend_on_how_many_there_are(tmp_path: Path) -> None:
    rows = persons([0, 1, 2] * 5)
    once, thrice = (Split(tmp_path, rows, k=3, repeats=repeats).table for repeats in (1, 3))
    pd.testing.assert_frame_equal(once, thrice[thrice["repeat"] == 0].reset_index(drop=True))


ANIMALS = factor_label_space({"kind": ("cat", "dog"), "age": ("young", "old")})


def animals(labels: Sequence[int]) -> list[Row]:
    """One image of each animal, of a class of `ANIMALS`."""
    rows = []
    for number, label in enumerate(labels):
        kind, age = ANIMALS.classes[label].split("-")
        row = manifest_row(f"{number}.png", f"g{number:02d}", 0, str(number), kind=kind, age=age)
        rows.append(row | {"label": label, "class_name": ANIMALS.classes[label]})
    return rows


def test_factors_make_the_strata(tmp_path: Path) -> None:
    rows = animals([0, 1, 2, 3] * 6)
    split = Split(tmp_path, rows, ANIMALS, k=3, stratify=["age"])
    assert set(split.table["stratum"]) == {"young", "old"}
    split = Split(tmp_path, rows, ANIMALS, k=3, stratify=["age", "kind"])
    assert set(split.table["stratum"]) == {"young-cat", "young-dog", "old-cat", "old-dog"}
    assert [entry["by_fold"] for entry in split.proof["strata"]] == [[2, 2, 2]] * 4


def test_the_classes_of_the_manifest_are_passed_on(tmp_path: Path) -> None:
    assert read_label_space(Split(tmp_path, persons([0, 1, 2] * 5)).classes) == LABEL_SPACE


def test_the_proof_tells_counts_method_and_digests(tmp_path: Path) -> None:
    split = Split(tmp_path, persons([0, 1, 2] * 5), k=5)
    proof = split.proof
    assert (proof["images"], proof["profiles"], proof["groups"]) == (45, 15, 15)
    assert proof["folds"][2] == {
        "fold": 2,
        "repeat": 0,
        "train": {"images": 36, "groups": 12},
        "validation": {"images": 9, "groups": 3},
        "shared": {"images": 0, "profiles": 0, "groups": 0, "bytes": 0},
    }
    assert proof["split_sha256"] == split.digest == split_sha256(split.table.sample(frac=1, random_state=0))
    assert proof["method"] == "StratifiedKFold over groups" and proof["seed"] == 7 and not proof["warnings"]


# --- F22 and F23: too few groups


def test_f22_a_class_with_few_or_no_groups_is_told_with_its_name_and_count(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = persons([0] * 8 + [1] * 2)
    split = Split(tmp_path, rows, k=4)
    lines = [
        "class green has 2 groups, fewer than 4: some fold lacks it",
        "class red has 0 groups, fewer than 4: some fold lacks it",
    ]
    assert split.proof["warnings"] == lines
    told = capsys.readouterr().err
    assert all(f"warning: folds: {line}\n" in told for line in lines)
    faults = faults_of(tmp_path / "strict", rows, k=4, on_rare="error")
    assert faults == tuple(f"folds: {line}; lower folds.k, or set folds.on_rare: warn" for line in lines)


def test_f22_a_stratum_with_few_groups_is_told_as_well(tmp_path: Path) -> None:
    faults = faults_of(tmp_path, animals([0] * 6 + [1] * 2), ANIMALS, k=3, on_rare="error", stratify=["age"])
    assert "folds: stratum old has 2 groups, fewer than 3: some fold lacks it" in faults[-1]
    assert [fault.split()[2] for fault in faults] == ["cat-old", "dog-young", "dog-old", "old"]


def test_f22_for_a_hold_out_two_groups_are_enough(tmp_path: Path) -> None:
    assert not Split(tmp_path, persons([0] * 8 + [1] * 2 + [2] * 2), method="holdout").proof["warnings"]


@pytest.mark.parametrize(
    ("labels", "values", "told"),
    [
        ([0, 1, 2], {"k": 5}, "folds: 5 parts of 3 groups leave some part empty; lower folds.k"),
        ([0, 1, 2] * 2, {"k": 3}, "folds: every stratum has fewer than 3 groups; lower folds.k or stratify by less"),
        (
            [0, 0, 0],
            {"method": "holdout", "fraction": 0.1},
            "10 parts of 3 groups leave some part empty; raise folds.fr",
        ),
    ],
)
def test_f23_more_folds_than_groups_are_refused(tmp_path: Path, labels: list[int], values: dict, told: str) -> None:
    (fault,) = faults_of(tmp_path, persons(labels), **values)
    assert told in fault


def test_f23_as_many_folds_as_groups_leave_one_out(tmp_path: Path) -> None:
    table = Split(tmp_path, persons([0] * 6), k=6).table
    assert table.groupby("fold")["group"].nunique().tolist() == [1] * 6


@pytest.mark.parametrize(("fraction", "held_out"), [(0.5, 20), (0.34, 13), (0.2, 8), (0.1, 4)])
def test_f23_a_hold_out_is_one_fold_and_the_rest_is_only_learnt_from(
    tmp_path: Path, fraction: float, held_out: int
) -> None:
    split = Split(tmp_path, persons([0, 1] * 20), method="holdout", fraction=fraction)
    assert set(split.table["fold"]) == {0, UNVALIDATED}
    training, validation = fold_rows(split.table, 0)
    assert abs(validation["group"].nunique() - held_out) <= 1
    assert training["group"].nunique() + validation["group"].nunique() == 40
    assert not set(training["group"]) & set(validation["group"])
    assert [fold["fold"] for fold in split.proof["folds"]] == [0]
    with pytest.raises(UserError, match="there is no fold 1"):
        fold_rows(split.table, 1)


def test_no_images_are_refused(tmp_path: Path) -> None:
    rows = persons([0])
    write_manifest(pd.DataFrame(rows).iloc[:0], tmp_path / "manifest.parquet")
    with pytest.raises(UserError, match="no training images; check data_root"):
        paths = (tmp_path / name for name in ("folds.parquet", "certificate.json", "classes.json"))
        make_folds(tmp_path / "manifest.parquet", Folds(), 1, *paths)
