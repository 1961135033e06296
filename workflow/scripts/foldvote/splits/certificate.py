"""The certificate of a split: counts, overlaps, balance of the strata, and similar images across groups."""

from collections.abc import Sequence
from typing import Any

import pandas as pd

from foldvote.config.folds import Folds
from foldvote.data.duplicates import near_duplicates, same_bytes
from foldvote.data.label_space import LabelSpace
from foldvote.splits.reserve import RESERVE, reserve_rows


def certify(
    folds: pd.DataFrame, manifest: pd.DataFrame, label_space: LabelSpace, settings: Folds, merged: list[list[str]]
) -> dict[str, Any]:
    """Count everything that a reader needs to trust a split.

    Args:
        folds: rows of folds.FOLDS.
        manifest: the training manifest, with the groups after merging.
        label_space: the classes.
        settings: the `folds` section of the configuration.
        merged: lists of group names that were merged because they share an image.

    Returns:
        The content of `folds/certificate.json`, without the split's digest.
    """
    numbers = sorted(number for number in set(folds["fold"]) if number >= 0)
    pairs, nearest = near_duplicates(manifest, settings.near_duplicate_bits)
    once = folds[folds["repeat"] == 0]
    kept_out = _reserve_counts(folds, manifest)
    return {
        "images": len(once),
        "profiles": once["profile"].nunique(),
        "groups": once["group"].nunique(),
        "folds": [_fold_counts(folds, manifest, number) for number in numbers],
        "strata": _strata_table(folds, numbers),
        "classes": _class_table(folds, label_space, numbers),
        "merged_groups": merged,
        "same_bytes_across_groups": same_bytes(manifest),
        "near_duplicates": {"bits": settings.near_duplicate_bits, "pairs": pairs, "nearest": nearest},
        "warnings": _absences(folds[folds["fold"] != RESERVE], label_space),
    } | ({"reserve": kept_out} if kept_out else {})


def _fold_counts(folds: pd.DataFrame, manifest: pd.DataFrame, number: int) -> dict[str, Any]:
    validation = folds[folds["fold"] == number]
    repeat = validation["repeat"].iloc[0]
    training = folds[(folds["repeat"] == repeat) & ~folds["fold"].isin([number, RESERVE])]
    return {
        "fold": int(number),
        "repeat": int(repeat),
        "train": {"images": len(training), "groups": training["group"].nunique()},
        "validation": {"images": len(validation), "groups": validation["group"].nunique()},
        "shared": _shared(training, validation, manifest),
    }


def _reserve_counts(folds: pd.DataFrame, manifest: pd.DataFrame) -> dict[str, Any] | None:
    """The size of the reserve and what it shares with all other rows; None where there is no reserve."""
    kept_out, others = reserve_rows(folds), folds[folds["fold"] != RESERVE]
    if kept_out.empty:
        return None
    shared = _shared(others, kept_out, manifest)
    return {"images": len(kept_out), "groups": kept_out["group"].nunique(), "shared": shared}


def _shared(training: pd.DataFrame, validation: pd.DataFrame, manifest: pd.DataFrame) -> dict[str, int]:
    """How many images, profiles, groups and file contents are in both parts."""
    content = manifest.set_index("image_id")["sha256"]
    shared = {
        "images": set(training["image_id"]) & set(validation["image_id"]),
        "profiles": set(training["profile"]) & set(validation["profile"]),
        "groups": set(training["group"]) & set(validation["group"]),
        "bytes": set(content[training["image_id"]]) & set(content[validation["image_id"]]),
    }
    return {name: len(values) for name, values in shared.items()}


def _strata_table(folds: pd.DataFrame, numbers: list[int]) -> list[dict[str, Any]]:
    """Groups of each stratum in each fold of the first repeat, and the equal share."""
    rows = folds[(folds["repeat"] == 0) & (folds["fold"] != RESERVE)].drop_duplicates(["group", "stratum"])
    first = [number for number in numbers if number in set(rows["fold"])]
    table = []
    for stratum, members in rows.groupby("stratum"):
        by_fold = [int((members["fold"] == number).sum()) for number in first]
        table.append(
            {
                "stratum": stratum,
                "groups": len(members),
                "target_per_fold": round(len(members) / max(len(first), 1), 2) if len(first) > 1 else None,
                "by_fold": by_fold,
            }
        )
    return table


def _class_table(folds: pd.DataFrame, label_space: LabelSpace, numbers: list[int]) -> list[dict[str, Any]]:
    counts = folds.groupby(["label", "fold"]).size()
    return [
        {"class": name, "by_fold": [int(counts.get((code, number), 0)) for number in numbers]}
        for code, name in enumerate(label_space.classes)
    ]


def _absences(folds: pd.DataFrame, label_space: LabelSpace) -> list[str]:
    """One line for each class and stratum that the training or the validation part of some fold lacks."""
    by_name = folds.assign(label=folds["label"].map(dict(enumerate(label_space.classes))))
    strata = sorted(set(folds["stratum"]) - set(label_space.classes))
    kinds = (("class", "label", label_space.classes), ("stratum", "stratum", strata))
    lines = []
    for kind, column, names in kinds:
        found = by_name.drop_duplicates(["repeat", "group", column])
        of_name = dict(list(found.groupby(column)))
        faults = ((name, _absence(of_name.get(name, found.iloc[:0]), folds)) for name in names)
        lines += [f"{kind} {name} has {fault}" for name, fault in faults if fault]
    return lines


def _absence(rows: pd.DataFrame, folds: pd.DataFrame) -> str | None:
    """Which folds lack a class or stratum to learn from or to be scored on; None if every fold has it.

    Args:
        rows: one row for each group of it and repeat.
        folds: the whole split.
    """
    if rows.empty:
        return "no images"
    unseen, unscored = [], []
    for repeat, whole in folds.groupby("repeat"):
        there = set(rows.loc[rows["repeat"] == repeat, "fold"])
        numbers = set(whole["fold"]) - {-1}
        unseen += sorted(there & numbers) if len(there) == 1 else []
        unscored += sorted(numbers - there)
    count = rows["group"].nunique()
    groups = f"{count} group{'s' * (count != 1)}"
    if unseen:
        where = f"{'all ' * (count != 1)}in {_folds(unseen)}"
        return f"{groups}, {where}: {_folds(unseen, 'the member of ')} is scored on what it never saw"
    return f"{groups}, none in {_folds(unscored)}, where it is not scored" if unscored else None


def _folds(numbers: Sequence[int], before: str = "") -> str:
    """Numbers of folds in words: at most ten, then a count."""
    more = f" and {len(numbers) - 10} more" if len(numbers) > 10 else ""
    return f"{before}fold{'s' * (len(numbers) != 1)} {', '.join(map(str, numbers[:10]))}{more}"
