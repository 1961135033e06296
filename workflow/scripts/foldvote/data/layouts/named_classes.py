"""Corrections of data whose images are named one by one: what the layouts `table` and `folders` share."""

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from foldvote.data.label_space import LABEL
from foldvote.data.layouts.base import Correction, CorrectionFault
from foldvote.errors import did_you_mean

Fields = Mapping[str, tuple[str, Sequence[str] | None]]


def correct_field(frame: pd.DataFrame, correction: Correction, fields: Fields) -> pd.Series:
    """Correct one image, or all images of a group, in place.

    Args:
        frame: training rows with image_id, group and the columns of `fields`.
        correction: its id is an image_id, or else a group.
        fields: by the name that a correction uses, the column and its levels; None: any name is a level.

    Returns:
        Mask of the rows that were changed.

    Raises:
        CorrectionFault: if it names an unknown id or field, or does not match the rows.
    """
    if correction.field not in fields:
        known = list(fields)
        guess = did_you_mean(correction.field, known) or f"; use {known}"
        raise CorrectionFault(f"no field {correction.field!r}{guess}")
    column, levels = fields[correction.field]
    place = frame["image_id"] == correction.id
    if not place.any():
        place = frame["group"] == correction.id
    if not place.any():
        raise CorrectionFault("no training image or group of the data has this id; remove the row")
    check_levels(frame.loc[place, column], correction, levels)
    frame.loc[place, column] = correction.after
    return place


def check_levels(present: pd.Series, correction: Correction, levels: Sequence[str] | None) -> None:
    """Make sure that a correction matches what stands there.

    Args:
        present: the levels that stand there.
        correction: what to change.
        levels: those that are known; None: any name is one.

    Raises:
        CorrectionFault: if its `before` is not what stands there, or its `after` is no level or the same one.
    """
    others = sorted(set(present) - {correction.before})
    if others:
        raise CorrectionFault(
            f"{correction.field} is {' and '.join(others)}, not {correction.before!r}; correct the column from"
        )
    if not correction.after or (levels is not None and correction.after not in levels):
        shown = f"; use one of {', '.join(levels[:20])}" if levels else "; write a class name"
        raise CorrectionFault(f"to is {correction.after!r}, which is not known{shown}")
    if correction.after == correction.before:
        raise CorrectionFault(f"from and to are both {correction.after!r}; remove the row")


def draft_field(issue: Mapping[str, Any], label: str) -> list[Correction]:
    """A label issue as corrections of a group, of one image, or of both images of a swap.

    Args:
        issue: a row of `label_issues.LABEL_ISSUES`.
        label: the field that names the class where the class is not made up of factors.
    """
    field = label if issue["field"] == LABEL else issue["field"]
    given, suggested = issue["given"], issue["suggested"]
    if issue["kind"] == "person":
        return [Correction(issue["profile"], field, given, suggested)]
    drafted = [Correction(issue["image_id"], field, given, suggested)]
    if issue["kind"] == "swap":
        drafted.append(Correction(issue["other_image_id"], field, suggested, given))
    return drafted
