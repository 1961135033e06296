"""Label corrections of single images and groups, shared by the layouts `table` and `folders`."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import pandas as pd

from foldvote.data.label_space import LABEL
from foldvote.data.layouts.base import Correction, CorrectionFault
from foldvote.errors import did_you_mean
from foldvote.io.names import look, spelled

Fields = Mapping[str, tuple[str, Sequence[str]]]
_MOST_COMPARED = 20_000  # names among which a similar one is looked for; each takes about 20 us
_NEAR = 0.9  # ids are similar to each other, so that a lower similarity means nothing


def correct_field(frame: pd.DataFrame, correction: Correction, fields: Fields) -> pd.Series:
    """Correct one image, or all images of a group, in place.

    Args:
        frame: training rows with image_id, group and the columns of `fields`.
        correction: its id is an image_id or, if no image has this id, a group.
        fields: for each field name of a correction the column and its levels.

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
        guess = near_name(correction.id, {*frame["image_id"], *frame["group"]}) or "; remove the row"
        raise CorrectionFault(f"no training image or group of the data has this id{guess}")
    check_levels(frame.loc[place, column], correction, levels)
    frame.loc[place, column] = correction.after
    return place


def near_name(name: str, known: Collection[str]) -> str:
    """`"; did you mean 'x'?"` for an id that is not known, or nothing where no id is near or there are too many."""
    same = next((other for other in sorted(known) if look(other) == look(name)), None)
    if same is not None:
        return f"; did you mean {spelled(same)}?"
    return did_you_mean(name, known, _NEAR) if len(known) <= _MOST_COMPARED else ""


def check_levels(present: pd.Series, correction: Correction, levels: Sequence[str]) -> None:
    """Check that a correction matches the present levels.

    Args:
        present: the present levels of the rows that it would change.
        correction: the change.
        levels: the known levels.

    Raises:
        CorrectionFault: if `before` is not the present level, or `after` is unknown or equal to `before`.
    """
    others = sorted(set(present) - {correction.before})
    if others:
        raise CorrectionFault(
            f"{correction.field} is {' and '.join(others)}, not {correction.before!r}; correct the column from"
        )
    if correction.after not in levels:
        guess = did_you_mean(correction.after, levels) or f"; use one of {', '.join(levels[:20])}"
        raise CorrectionFault(f"to is {correction.after!r}, which is not known{guess}")
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
