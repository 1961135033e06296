"""Label corrections of the home task: of the gender or age of a person, and of swapped shots."""

from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any

import pandas as pd

from foldvote.data.layouts.base import Correction, CorrectionFault
from foldvote.data.layouts.maskbase_labels import GENDERS, SHOTS, age_band, age_in_years, age_levels
from foldvote.data.layouts.named_classes import check_levels, near_name
from foldvote.errors import did_you_mean

_NEAR_BAND = 0.7  # the names of the bands are similar to each other
IGNORED = frozenset({"race"})
FIELDS = ("gender", "age", "shots", "race")


def correct_person(frame: pd.DataFrame, correction: Correction, borders: tuple[int, int]) -> pd.Series:
    """Correct the rows of one person in place.

    Args:
        frame: training rows of the home task.
        correction: its id is the id of a person, or the `path` if the id is not unique. Its field is gender, age (in
            years, or a band such as `<30`, `30to59`, `>=60`, `under30`; a band does not change age_years) or shots (the
            shots named `before` and `after` are exchanged).
        borders: borders of the age bands, in years.

    Returns:
        Mask of the rows that were changed.

    Raises:
        CorrectionFault: if the correction names an unknown person or field, or does not match the rows.
    """
    person = _person(frame, correction.id)
    if correction.field == "gender":
        check_levels(frame.loc[person, "gender"], correction, GENDERS)
        frame.loc[person, "gender"] = correction.after
        return person
    if correction.field == "age":
        _correct_age(frame, person, correction, borders)
        return person
    if correction.field == "shots":
        return _swap(frame, person, correction)
    guess = did_you_mean(correction.field, FIELDS) or f"; use one of {FIELDS}"
    raise CorrectionFault(f"no field {correction.field!r}{guess}")


def draft_person(issue: Mapping[str, Any]) -> list[Correction]:
    """Turn a label issue into a correction of a person or of two swapped shots.

    A single shot with a doubtful mask state gives an empty list, because no correction can express it.

    Args:
        issue: a row of `label_issues.LABEL_ISSUES`.
    """
    if issue["kind"] == "person":
        return [Correction(issue["profile"], issue["field"], issue["given"], issue["suggested"])]
    if issue["kind"] == "swap":
        first, second = (PurePosixPath(issue[name]).stem for name in ("image_id", "other_image_id"))
        return [Correction(issue["profile"], "shots", first, second)]
    return []


def _person(frame: pd.DataFrame, name: str) -> pd.Series:
    """Mask of the rows of one person, named by path or by a unique id."""
    by_path = frame["profile"] == name
    if by_path.any():
        return by_path
    by_id = frame["person_id"] == name
    if not by_id.any():
        guess = near_name(name, {*frame["person_id"], *frame["profile"]}) or "; remove the row"
        raise CorrectionFault(f"no person of the data has this id or path{guess}")
    profiles = sorted(set(frame.loc[by_id, "profile"]))
    if len(profiles) > 1:
        raise CorrectionFault(f"{len(profiles)} persons have this id; write the path instead: {' or '.join(profiles)}")
    return by_id


def _correct_age(frame: pd.DataFrame, person: pd.Series, correction: Correction, borders: tuple[int, int]) -> None:
    now_years, now_band = int(frame.loc[person, "age_years"].iloc[0]), frame.loc[person, "age"].iloc[0]
    before, after = (_age(side, borders) for side in (correction.before, correction.after))
    if before not in (now_years, now_band):
        raise CorrectionFault(f"age is {now_years} ({now_band}), not {correction.before!r}; correct the column from")
    if after == before:
        raise CorrectionFault(f"from and to are both {correction.after!r}; remove the row")
    if isinstance(after, int):
        frame.loc[person, "age_years"] = after
    frame.loc[person, "age"] = age_band(after, borders) if isinstance(after, int) else after


def _age(text: str, borders: tuple[int, int]) -> int | str:
    """Years, or the name of a band."""
    low, middle, high = age_levels(borders)
    bands = {low: low, f"<{borders[0]}": low, middle: middle, high: high, f">={borders[1]}": high}
    found = bands.get(text.replace(" ", ""), age_in_years(text))
    if found is None:
        guess = did_you_mean(text, bands, _NEAR_BAND) or "; correct it"
        raise CorrectionFault(f"{text!r} is neither an age in years nor one of the bands {', '.join(bands)}{guess}")
    return found


def _swap(frame: pd.DataFrame, person: pd.Series, correction: Correction) -> pd.Series:
    """Exchange the mask states of two shots of a person. Returns the mask of the two rows."""
    stems = (correction.before, correction.after)
    for stem in stems:
        if stem not in SHOTS:
            guess = did_you_mean(stem, list(SHOTS)) or f"; use two of {tuple(SHOTS)}"
            raise CorrectionFault(f"no shot {stem!r}{guess}")
    names = frame["path"].map(lambda path: Path(path).stem)
    first, second = (person & (names == stem) for stem in stems)
    levels = [frame.loc[place, "mask"].iloc[0] for place in (first, second)]
    if levels[0] == levels[1]:
        raise CorrectionFault(
            f"{stems[0]} and {stems[1]} are both {levels[0]}, so a swap changes nothing; remove the row"
        )
    frame.loc[first, "mask"], frame.loc[second, "mask"] = levels[1], levels[0]
    return first | second
