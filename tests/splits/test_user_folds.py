"""The user's own folds: taken as they are, or refused by file and row."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from support.splits import Split, by_group, faults_of, own, persons

LABELS = [0, 1, 2] * 4


@pytest.mark.parametrize("name", ["own.csv", "own.parquet"])
@pytest.mark.parametrize("unit", ["group", "profile", "image_id"])
def test_a_users_folds_are_taken_as_they_are(tmp_path: Path, name: str, unit: str) -> None:
    table = by_group(LABELS, 3)
    rows = persons(LABELS)
    if unit == "image_id":
        folds = dict(table.itertuples(index=False))
        table = pd.DataFrame({"image_id": [r["image_id"] for r in rows], "fold": [folds[r["group"]] for r in rows]})
    table = table.rename(columns={"group": unit}).sample(frac=1, random_state=0).assign(remark="x")
    split = Split(tmp_path, rows, method="file", file=own(tmp_path, table, name), k=3)
    wanted = dict(zip(table[unit], table["fold"], strict=True))
    assert all(fold == wanted[value] for value, fold in zip(split.table[unit], split.table["fold"], strict=True))
    assert split.proof["method"] == f"the user's file {tmp_path / name}"
    assert all(not any(fold["shared"].values()) for fold in split.proof["folds"])


def test_the_folds_of_another_run_can_be_given_as_ones_own(tmp_path: Path) -> None:
    (tmp_path / "first").mkdir()
    first = Split(tmp_path / "first", persons(LABELS), k=3)
    again = Split(tmp_path, persons(LABELS), method="file", file=str(first.folds), k=3)
    assert again.digest == first.digest


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda t: t.iloc[2:], ["group p000 of the manifest has no fold; add a row", "group p001 of the"]),
        (lambda t: t.replace({"fold": {2: 3}}), ["group p002: fold '3' is not 0 to 2; correct it, or set folds.k"]),
        (lambda t: t.replace({"fold": {2: -1}}), ["group p002: fold '-1' is not 0 to 2"]),
        (lambda t: t.assign(fold=t["fold"] + 0.5), ["group p000: fold '0.5' is not 0 to 2"]),
        (lambda t: t.assign(fold="one"), ["group p000: fold 'one' is not 0 to 2"]),
        (lambda t: pd.concat([t, t.assign(fold=1)]), ["group p000 stands in several folds; keep one row"]),
        (
            lambda t: t.rename(columns={"group": "person"}),
            ["needs the columns group (or profile, or image_id)"],
        ),
        (lambda t: t.rename(columns={"fold": "folds"}), ["needs the columns group (or profile, or image_id)"]),
        (lambda t: t.iloc[:0], ["holds a header and no rows"]),
        (
            lambda t: t.replace({"fold": {2: 1}}),
            ["fold 2 has no images; number the folds from 0 without a gap, and set folds.k to their number"],
        ),
    ],
    ids=["missing", "high", "negative", "fraction", "word", "several", "no_unit", "no_fold", "no_rows", "unused"],
)
def test_a_users_bad_folds_are_refused_by_file_and_row(tmp_path: Path, change, told: list[str]) -> None:
    path = own(tmp_path, change(by_group(LABELS, 3)))
    faults = faults_of(tmp_path / "made", persons(LABELS), method="file", file=path, k=3)
    for line, fault in zip(told, faults, strict=False):
        assert line in fault and fault.startswith(path), faults


def test_names_of_a_users_folds_are_read_as_those_of_a_table(tmp_path: Path) -> None:
    table = by_group(LABELS, 3)
    spaced = table.assign(group=[f" {name}\u00a0" for name in table["group"]])
    split = Split(tmp_path, persons(LABELS), method="file", file=own(tmp_path, spaced), k=3)
    wanted = dict(zip(table["group"], table["fold"], strict=True))
    assert all(fold == wanted[name] for name, fold in zip(split.table["group"], split.table["fold"], strict=True))
    path = own(tmp_path, table.replace({"group": {"p000": "P000"}}))
    (fault,) = faults_of(tmp_path / "made", persons(LABELS), method="file", file=path, k=3)
    assert fault.endswith("group p000 of the manifest has no fold; is it 'P000' there? write it alike")


def test_a_users_folds_that_split_a_group_are_refused(tmp_path: Path) -> None:
    rows = persons(LABELS)
    table = pd.DataFrame({"image_id": [row["image_id"] for row in rows], "fold": np.arange(len(rows)) % 3})
    faults = faults_of(tmp_path / "made", rows, method="file", file=own(tmp_path, table), k=3)
    assert "group p000 stands in 3 folds of one repeat; put all its images into one fold" in faults[0]


def test_f35_a_users_folds_that_part_one_person_under_two_ids_are_refused_with_the_reason(tmp_path: Path) -> None:
    rows = persons(LABELS)
    rows[0]["sha256"] = rows[3]["sha256"]
    path = own(tmp_path, by_group(LABELS, 3))
    faults = faults_of(tmp_path / "made", rows, method="file", file=path, k=3)
    assert faults[0].startswith(f"{path}: group p000 stands in 2 folds of one repeat")
    first, second = sorted((rows[0]["image_id"], rows[3]["image_id"]))
    assert faults[-1].startswith(
        f"{path}: {first}, {second} are one file, so that the groups p000, p001 count as one; "
    )
    together = by_group(LABELS, 3)
    together.loc[1, "fold"] = 0
    split = Split(tmp_path, rows, method="file", file=own(tmp_path, together), k=3)
    assert split.proof["merged_groups"] == [["p000", "p001"]]
