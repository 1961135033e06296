"""Images that are only trained on, such as external data: every member learns from them, and none is scored on them.

A member must not learn from a group that it is scored on. So an image of a group that is validated in some fold is kept
out of that fold's member, and one of a group of the reserve out of all members. Groups are compared after those that
share a file were merged, so that a copy under another group's name is kept out as well.
"""

from collections.abc import Sequence
from typing import Any

import pandas as pd

from foldvote.errors import first_few
from foldvote.splits.reserve import RESERVE, reserve_rows

TRAIN_ONLY = -3  # the fold of its rows, in every repeat


def with_train_only(folds: pd.DataFrame, rows: pd.DataFrame) -> pd.DataFrame:
    """A split together with the images that are only trained on, once in each repeat.

    Args:
        folds: the split of all other images, rows of folds.FOLDS.
        rows: these images, with the columns of `folds` but repeat and fold.
    """
    if rows.empty:
        return folds
    repeats = sorted(set(folds["repeat"]))
    parts = [rows.assign(repeat=repeat, fold=TRAIN_ONLY).astype(folds.dtypes[["repeat", "fold"]]) for repeat in repeats]
    return pd.concat([folds, *parts], ignore_index=True)


def scored_rows(folds: pd.DataFrame) -> pd.DataFrame:
    """The rows of all other images: of the folds, the reserve, and those that a hold-out only trains on."""
    return folds[folds["fold"] != TRAIN_ONLY]


def training_rows(folds: pd.DataFrame, fold: int) -> pd.DataFrame:
    """The rows that the member of a fold learns from.

    Args:
        folds: rows of folds.FOLDS, of which some have this fold.
        fold: the number of the fold.
    """
    repeat = folds.loc[folds["fold"] == fold, "repeat"].iloc[0]
    scored_on = folds.loc[folds["fold"].isin([fold, RESERVE]), "group"].unique()
    kept_out = (folds["fold"] == TRAIN_ONLY) & folds["group"].isin(scored_on)
    return folds[(folds["repeat"] == repeat) & ~folds["fold"].isin([fold, RESERVE]) & ~kept_out]


def learnt_rows(folds: pd.DataFrame) -> pd.DataFrame:
    """The rows that some member learns from, one per image.

    Args:
        folds: rows of folds.FOLDS, of which some are in a fold.
    """
    numbers = sorted(number for number in folds["fold"].unique() if number >= 0)
    return pd.concat([training_rows(folds, number) for number in numbers]).drop_duplicates("image_id")


def train_only_counts(folds: pd.DataFrame) -> dict[str, Any] | None:
    """How many images are only trained on, and which members do not learn from all of them.

    Args:
        folds: rows of folds.FOLDS.

    Returns:
        images, groups; shared_groups: those of them that a fold validates or the reserve holds; kept_out: for each
        fold the images and groups that its member does not learn from. None if no image is only trained on.
    """
    rows = folds[folds["fold"] == TRAIN_ONLY]
    if rows.empty:
        return None
    once = rows.drop_duplicates("image_id")
    kept_out = []
    for fold in sorted(number for number in folds["fold"].unique() if number >= 0):
        learnt = training_rows(folds, fold)
        lost = once[~once["image_id"].isin(learnt["image_id"])]
        kept_out.append({"fold": int(fold), "images": len(lost), "groups": lost["group"].nunique()})
    tested = {*folds.loc[folds["fold"] >= 0, "group"], *reserve_rows(folds)["group"]}
    shared = set(once["group"]) & tested
    return {"images": len(once), "groups": once["group"].nunique(), "shared_groups": len(shared), "kept_out": kept_out}


def train_only_faults(folds: pd.DataFrame) -> list[str]:
    """Lines for images that are only trained on in some repeats, and validated or missing in others."""
    ids = folds.loc[folds["fold"] == TRAIN_ONLY, ["image_id", "repeat"]]
    if ids.empty:
        return []
    names = set(ids["image_id"])
    faults = _named("are train_only and also in a fold, in the reserve or validated", names & set(_ids(folds)))
    counts = ids.groupby("image_id").size()
    return faults + _named("are train_only and not in every repeat", counts.index[counts != folds["repeat"].nunique()])


def _ids(folds: pd.DataFrame) -> "pd.Series[str]":
    return scored_rows(folds)["image_id"]


def _named(what: str, ids: Sequence[str] | set[str]) -> list[str]:
    return [f"{len(ids)} images {what}: {first_few(sorted(ids))}; put them in one part"] if len(ids) else []
