"""The split: whole groups, balanced and repeatable; too few groups are named."""

import itertools
import re
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
from support.splits import Row, Split, by_group, faults_of, own, persons
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
    empty = sorted(set(range(4)) - set(split.table.loc[split.table["label"] == 1, "fold"]))
    lines = [
        f"class green has 2 groups, none in folds {empty[0]}, {empty[1]}, where it is not scored",
        "class red has no images",
    ]
    assert split.proof["warnings"] == lines
    told = capsys.readouterr().err
    assert all(f"warning: folds: {line}\n" in told for line in lines)
    faults = faults_of(tmp_path / "strict", rows, k=4, on_rare="error")
    assert faults == tuple(
        f"folds: {line}; give it more groups or lower folds.k, or set folds.on_rare: warn" for line in lines
    )


def test_f22_a_stratum_with_few_groups_is_told_as_well(tmp_path: Path) -> None:
    faults = faults_of(tmp_path, animals([0] * 6 + [1] * 2), ANIMALS, k=3, on_rare="error", stratify=["age"])
    assert "folds: stratum old has 2 groups, none in fold " in faults[-1]
    assert [fault.split()[2] for fault in faults] == ["cat-old", "dog-young", "dog-old", "old"]


def test_f22_for_a_hold_out_two_groups_are_enough(tmp_path: Path) -> None:
    assert not Split(tmp_path, persons([0] * 2 + [1] * 2 + [2] * 2), method="holdout", fraction=0.5).proof["warnings"]


@st.composite
def numbered(draw: st.DrawFn) -> tuple[int, dict[str, tuple[list[int], int]]]:
    """A number of folds, and for each group the labels of its images and its fold; every fold has a group."""
    k = draw(st.integers(2, 4))
    folds = [*range(k), *draw(st.lists(st.integers(0, k - 1), max_size=6))]
    labels = st.lists(st.integers(0, 2), min_size=1, max_size=3)
    return k, {f"g{number}": (draw(labels), fold) for number, fold in enumerate(folds)}


@given(numbered())
@settings(max_examples=25, deadline=None)
def test_every_class_that_a_fold_lacks_is_named_and_no_other(
    tmp_path_factory: pytest.TempPathFactory, made: tuple[int, dict[str, tuple[list[int], int]]]
) -> None:
    k, groups = made
    folder = tmp_path_factory.getbasetemp()
    rows = [
        manifest_row(f"{name}/{shot}", name, label, f"{name}-{shot}")
        for name, (labels, _) in groups.items()
        for shot, label in enumerate(labels)
    ]
    path = own(folder, pd.DataFrame({"group": list(groups), "fold": [fold for _, fold in groups.values()]}))
    told = {line.split()[1]: line for line in Split(folder, rows, method="file", file=path, k=k).proof["warnings"]}
    for label, name in enumerate(LABEL_SPACE.classes):
        there = {fold for labels, fold in groups.values() if label in labels}
        line = told.get(name, "")
        assert bool(line) == (there != set(range(k)))
        assert ("scored on what it never saw" in line) == (len(there) == 1)
        if len(there) == 1:
            assert f"the member of fold {there.pop()} is" in line
        elif there and line:
            missing = sorted(set(range(k)) - there)
            assert f"none in fold{'s' * (len(missing) > 1)} {', '.join(map(str, missing))}, where" in line


def test_a_class_whose_groups_are_all_in_one_fold_of_the_users_is_named_and_can_be_refused(tmp_path: Path) -> None:
    table = by_group([0, 0, 1, 1, 2, 2], 2)
    table["fold"] = [0, 1, 0, 1, 1, 1]
    path = own(tmp_path, table)
    values = {"method": "file", "file": path, "k": 2}
    line = "class red has 2 groups, all in fold 1: the member of fold 1 is scored on what it never saw"
    assert Split(tmp_path, persons([0, 0, 1, 1, 2, 2]), **values).proof["warnings"] == [line]
    (fault,) = faults_of(tmp_path / "made", persons([0, 0, 1, 1, 2, 2]), **values, on_rare="error")
    assert fault == f"folds: {line}; spread its groups over the folds of {path}, or set folds.on_rare: warn"
    table["fold"] = [0, 1, 0, 1, 0, 1]
    assert not Split(tmp_path, persons([0, 0, 1, 1, 2, 2]), **values | {"file": own(tmp_path, table)}).proof["warnings"]


def test_a_stratum_that_one_member_never_saw_is_named_for_every_repeat(tmp_path: Path) -> None:
    rows = animals([0, 0, 0, 0, 2, 2, 2, 3])
    warnings = Split(tmp_path, rows, ANIMALS, k=2, repeats=2, stratify=["age"]).proof["warnings"]
    (line,) = [line for line in warnings if line.startswith("stratum old")]
    assert line.startswith("stratum old has 1 group, in folds ") and line.endswith("is scored on what it never saw")


@pytest.mark.parametrize(
    ("labels", "values", "told"),
    [
        ([0, 0, 0], {"k": 5}, "folds: 5 parts of 3 groups leave some part empty; lower folds.k to 3"),
        ([0, 1, 2] * 2, {"k": 3}, "folds: every stratum has fewer than 3 groups; lower folds.k to 2"),
        (
            [0, 1, 2],
            {"k": 5},
            "5 parts of 3 groups leave some part empty; every stratum has one of the groups, and none",
        ),
        ([0], {"k": 2}, "folds: all images are of one group, which is never parted; name a smaller unit as the group"),
        (
            [0, 0, 0],
            {"method": "holdout", "fraction": 0.1},
            "10 parts of 3 groups leave some part empty; raise folds.fraction to 0.34",
        ),
    ],
)
def test_f23_more_folds_than_groups_are_refused(tmp_path: Path, labels: list[int], values: dict, told: str) -> None:
    (fault,) = faults_of(tmp_path, persons(labels), **values)
    assert told in fault


@given(st.lists(st.integers(0, 2), min_size=2, max_size=12), st.integers(2, 20), st.booleans())
@settings(max_examples=15, deadline=None)
def test_f23_the_number_of_folds_or_the_share_that_an_error_names_works(
    tmp_path_factory: pytest.TempPathFactory, labels: list[int], parts: int, holdout: bool
) -> None:
    folder = tmp_path_factory.getbasetemp()
    values: dict[str, object] = {"method": "holdout", "fraction": 1 / parts} if holdout else {"k": parts}
    try:
        Split(folder, persons(labels), **values)
    except UserError as refused:
        remedy = re.search(r"(lower folds.k|raise folds.fraction) to ([\d.]+)$", str(refused))
        if remedy is None:
            assert "none can be learnt and scored" in str(refused) and max(map(labels.count, labels)) == 1
        elif holdout:
            Split(folder, persons(labels), method="holdout", fraction=float(remedy[2]))
        else:
            Split(folder, persons(labels), k=int(remedy[2]))


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
