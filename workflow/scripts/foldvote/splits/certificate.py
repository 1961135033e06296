"""The certificate of a split: counts, overlaps, balance of the strata, and similar images across groups."""

from collections.abc import Sequence
from typing import Any

import pandas as pd

from foldvote.config.folds import Folds
from foldvote.data.duplicates import near_duplicates, same_bytes
from foldvote.data.label_space import LabelSpace
from foldvote.splits.reserve import RESERVE, reserve_rows
from foldvote.splits.train_only import TRAIN_ONLY, scored_rows, train_only_counts, training_rows


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
    scored = scored_rows(folds)
    once = scored[scored["repeat"] == 0]
    further = {"reserve": _reserve_counts(folds, manifest, numbers), "train_only": train_only_counts(folds)}
    return {
        "images": len(once),
        "profiles": once["profile"].nunique(),
        "groups": once["group"].nunique(),
        "folds": [_fold_counts(folds, manifest, number) for number in numbers],
        "strata": _strata_table(scored, numbers),
        "classes": _class_table(folds, label_space, numbers),
        "merged_groups": merged,
        "same_bytes_across_groups": same_bytes(manifest),
        "near_duplicates": {"bits": settings.near_duplicate_bits, "pairs": pairs, "nearest": nearest},
        "warnings": _absences(scored[scored["fold"] != RESERVE], _only_learnt(folds, numbers), label_space),
    } | {name: counts for name, counts in further.items() if counts}


def _fold_counts(folds: pd.DataFrame, manifest: pd.DataFrame, number: int) -> dict[str, Any]:
    validation, training = folds[folds["fold"] == number], training_rows(folds, number)
    return {
        "fold": int(number),
        "repeat": int(validation["repeat"].iloc[0]),
        "train": {"images": len(training), "groups": training["group"].nunique()},
        "validation": {"images": len(validation), "groups": validation["group"].nunique()},
        "shared": _shared(training, validation, manifest),
    }


def _reserve_counts(folds: pd.DataFrame, manifest: pd.DataFrame, numbers: list[int]) -> dict[str, Any] | None:
    """The size of the reserve and what it shares with all that members learn from or are validated on; or None."""
    kept_out = reserve_rows(folds)
    if kept_out.empty:
        return None
    learnt = (training_rows(folds, number) for number in numbers)
    shared = _shared(pd.concat([folds[folds["fold"] >= 0], *learnt]), kept_out, manifest)
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


def _only_learnt(folds: pd.DataFrame, numbers: list[int]) -> pd.DataFrame:
    """The images that are only trained on: one row for each member that learns from one, with the member's fold."""
    learnt = [training_rows(folds, number).assign(learner=number) for number in numbers]
    rows = pd.concat([rows[rows["fold"] == TRAIN_ONLY] for rows in learnt])
    return rows.assign(fold=rows["learner"])


def _absences(folds: pd.DataFrame, only_learnt: pd.DataFrame, label_space: LabelSpace) -> list[str]:
    """One line for each class and stratum that the training or the validation part of some fold lacks.

    Args:
        folds: the split without the reserve and without images that are only trained on.
        only_learnt: these images as `_only_learnt` returns them.
        label_space: the classes.
    """
    codes = dict(enumerate(label_space.classes))
    by_name, beside = (rows.assign(label=rows["label"].map(codes)) for rows in (folds, only_learnt))
    strata = sorted(set(folds["stratum"]) - set(label_space.classes))
    kinds = (("class", "label", label_space.classes), ("stratum", "stratum", strata))
    lines = []
    for kind, column, names in kinds:
        found = by_name.drop_duplicates(["repeat", "group", column])
        of_name = dict(list(found.groupby(column)))
        learners = beside.groupby(column)["fold"].agg(set).to_dict()
        faults = (
            (name, _absence(of_name.get(name, found.iloc[:0]), folds, learners.get(name, set()))) for name in names
        )
        lines += [f"{kind} {name} has {fault}" for name, fault in faults if fault]
    return lines


def _absence(rows: pd.DataFrame, folds: pd.DataFrame, learners: set[int]) -> str | None:
    """Which folds lack a class or stratum to learn from or to be scored on; None if every fold has it.

    Args:
        rows: one row for each group of it and repeat.
        folds: the whole split.
        learners: folds whose members learn from images of it that are only trained on.
    """
    if rows.empty:
        never = "only images that are train_only: it is learnt and never scored, and macro-F1 counts it as 0"
        return never if learners else "no images"
    unseen, unscored = [], []
    for repeat, whole in folds.groupby("repeat"):
        there = set(rows.loc[rows["repeat"] == repeat, "fold"])
        numbers = set(whole["fold"]) - {-1}
        unseen += sorted((there & numbers) - learners) if len(there) == 1 else []
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
