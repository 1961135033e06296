"""Label corrections of single images and groups, shared by the layouts `table` and `folders`."""

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
        correction: its id is an image_id or, if no image has this id, a group.
        fields: for each field name of a correction the column and its levels; levels None allows any name.

    Returns:
        Mask of the rows that were changed.

    Raises:
        CorrectionFault: if the correction names an unknown id or field, or does not match the rows.
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
    """Check that a correction matches the present levels.

    Args:
        present: the present levels of the rows that it would change.
        correction: the change.
        levels: the known levels; None allows any name.

    Raises:
        CorrectionFault: if `before` is not the present level, or `after` is unknown or equal to `before`.
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
    """Turn a label issue into corrections of a group, of one image, or of both images of a swap.

    Args:
        issue: a row of `label_issues.LABEL_ISSUES`.
        label: the field to use if the classes are not made up of factors.
    """
    field = label if issue["field"] == LABEL else issue["field"]
    given, suggested = issue["given"], issue["suggested"]
    if issue["kind"] == "person":
        return [Correction(issue["profile"], field, given, suggested)]
    drafted = [Correction(issue["image_id"], field, given, suggested)]
    if issue["kind"] == "swap":
        drafted.append(Correction(issue["other_image_id"], field, suggested, given))
    return drafted
