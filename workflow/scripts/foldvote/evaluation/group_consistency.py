"""Do the shots of one person agree? Levels that belong to the person, such as a gender, should not differ by shot.

Which factors belong to a person is read from the labels, never from names. What is pooled here is for display: a test
image comes without its person, so that a vote over the shots must never be handed in.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from foldvote.data.label_space import LABEL, LabelSpace
from foldvote.evaluation.metrics import SMALLEST, accuracy, macro_f1

Codes = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
NEARLY_EVERY = 0.95  # share of the persons within whom a field must be constant to belong to the person


def fields(scheme: LabelSpace) -> dict[str, tuple[str, ...]]:
    """What a label says: the factors with their levels, or `label` with the classes where there are no factors."""
    return scheme.factors or {LABEL: scheme.classes}


def level_codes(scheme: LabelSpace, field: str) -> Codes:
    """Level code of `field` for every class: int64 array of shape (classes,)."""
    return scheme.level_codes(field) if scheme.factors else np.arange(len(scheme.classes))


def marginals(probabilities: npt.NDArray[np.floating], scheme: LabelSpace, field: str) -> Floats:
    """Probability of each level of a field: the sum over the classes that share it.

    Args:
        probabilities: shape (images, classes).
        scheme: the classes.
        field: one of `fields(scheme)`.

    Returns:
        float64 of shape (images, levels).
    """
    wide = np.asarray(probabilities, np.float64)
    return wide @ np.eye(len(fields(scheme)[field]))[level_codes(scheme, field)] if scheme.factors else wide


def group_fields(rows: pd.DataFrame, scheme: LabelSpace) -> list[str]:
    """The fields that belong to the person: constant within nearly every person of two or more shots.

    Args:
        rows: a row an image: profile, label (code).
        scheme: the classes.

    Returns:
        Their names in the scheme's order; none where no person has two shots.
    """
    person, names = pd.factorize(rows["profile"])
    several = np.bincount(person, minlength=len(names)) > 1
    if not several.any():
        return []
    found = []
    for field in fields(scheme):
        given = level_codes(scheme, field)[rows["label"].to_numpy(np.int64)]
        low, high = np.full(len(names), np.iinfo(np.int64).max), np.full(len(names), -1)
        np.minimum.at(low, person, given)
        np.maximum.at(high, person, given)
        if (low == high)[several].mean() >= NEARLY_EVERY:
            found.append(field)
    return found


def group_vote(
    rows: pd.DataFrame, probabilities: npt.NDArray[np.floating], scheme: LabelSpace, own: Sequence[str] | None = None
) -> Floats:
    """Probabilities after the shots of each person have voted on what belongs to the person.

    The vote on the persons' fields (jointly) is the normalised geometric mean over the shots, a logarithmic opinion
    pool (Genest and Zidek, Statistical Science 1986). What belongs to the shot keeps its probability given these. A
    person with one shot keeps its probabilities, but for values below 2.2e-16, which count as that.

    Args:
        rows: a row an image: image_id, profile, label.
        probabilities: shape (images, classes), rows sum to 1.
        scheme: the classes.
        own: fields that belong to the person; None takes `group_fields`.

    Returns:
        float64 of shape (images, classes), in the order of `rows`; rows sum to 1.

    Raises:
        ValueError: if the shapes do not go together.
    """
    check(rows, probabilities, scheme)
    own = group_fields(rows, scheme) if own is None else list(own)
    wide = np.asarray(probabilities, np.float64)
    if not own or rows.empty:
        return wide.copy()
    code = scheme.restricted(own)[1] if scheme.factors else np.arange(len(scheme.classes))
    joint = np.maximum(wide, SMALLEST) @ np.eye(code.max() + 1)[code]
    person, order, starts = by_group(rows)
    means = np.add.reduceat(np.log(joint[order]), starts, axis=0) / np.bincount(person)[:, None]
    pooled = np.exp(means - means.max(axis=1, keepdims=True))
    pooled /= pooled.sum(axis=1, keepdims=True)
    voted = np.maximum(wide, SMALLEST) / joint[:, code] * pooled[person][:, code]
    return voted / voted.sum(axis=1, keepdims=True)


def consistency(rows: pd.DataFrame, probabilities: npt.NDArray[np.floating], scheme: LabelSpace) -> dict[str, Any]:
    """How far the shots of a person agree, and what a vote over them would score.

    Args:
        rows: a row an image: image_id, profile, label (code).
        probabilities: out-of-fold, shape (images, classes), rows sum to 1.
        scheme: the classes.

    Returns:
        A JSON-able dict: `images`, `persons`, `persons_of_several` (with two shots or more); `fields`, for each that
        belongs to the person `unanimous` (share of these persons whose shots all get one level), `agreement` (mean
        share of their shots that get the person's commonest level), `image_accuracy` and `vote_accuracy` (both over
        images: of the single shots, and with the level of the person's vote); `image` and `voted`, the accuracy and
        macro-F1 of classes before and after `group_vote`. Shares are 1.0 where no person has two shots.

    Raises:
        ValueError: if the shapes do not go together.
    """
    check(rows, probabilities, scheme)
    labels, number = rows["label"].to_numpy(np.int64), len(scheme.classes)
    own = group_fields(rows, scheme)
    voted = group_vote(rows, probabilities, scheme, own)
    person, _, _ = by_group(rows)
    shots = np.bincount(person)
    several = shots > 1
    found = {}
    for field in own:
        given = level_codes(scheme, field)[labels]
        single = marginals(probabilities, scheme, field).argmax(axis=1)
        agreeing = _counts(person, single, len(shots), len(fields(scheme)[field])).max(axis=1)[several]
        found[field] = {
            "unanimous": _mean(agreeing == shots[several]),
            "agreement": _mean(agreeing / shots[several]),
            "image_accuracy": accuracy(given, single),
            "vote_accuracy": accuracy(given, marginals(voted, scheme, field).argmax(axis=1)),
        }
    before, after = (np.asarray(each).argmax(axis=1) for each in (probabilities, voted))
    return {
        "images": len(rows),
        "persons": len(shots),
        "persons_of_several": int(several.sum()),
        "fields": found,
        **{
            name: {"accuracy": accuracy(labels, codes), "macro_f1": macro_f1(labels, codes, number)}
            for name, codes in (("image", before), ("voted", after))
        },
    }


def disagreeing_groups(rows: pd.DataFrame, probabilities: npt.NDArray[np.floating], scheme: LabelSpace) -> pd.DataFrame:
    """Persons whose shots are given different levels of a field that belongs to the person, the worst first.

    The strength is the Jensen-Shannon divergence of the shots' probabilities (Lin, IEEE Transactions on Information
    Theory 1991) over its largest value, so that it runs from 0 (the shots say the same) to 1.

    Args:
        rows: a row an image: image_id, profile, label (code).
        probabilities: out-of-fold, shape (images, classes), rows sum to 1.
        scheme: the classes.

    Returns:
        A row a person and field: profile, field, shots, given (its commonest label), voted (as `group_vote` has it),
        agreement (share of the shots with the commonest prediction), strength.

    Raises:
        ValueError: if the shapes do not go together.
    """
    check(rows, probabilities, scheme)
    own = group_fields(rows, scheme)
    voted = group_vote(rows, probabilities, scheme, own)
    person, order, starts = by_group(rows)
    shots = np.bincount(person)
    parts = []
    for field in own:
        levels = np.array(fields(scheme)[field], dtype=object)
        said = np.clip(marginals(probabilities, scheme, field), SMALLEST, 1.0)
        mean = np.add.reduceat(said[order], starts, axis=0) / shots[:, None]
        spread = _entropy(mean) - np.add.reduceat(_entropy(said)[order], starts) / shots
        counts = _counts(person, said.argmax(axis=1), len(shots), len(levels)).max(axis=1)
        given = _counts(person, level_codes(scheme, field)[rows["label"].to_numpy(np.int64)], len(shots), len(levels))
        chosen = marginals(voted, scheme, field)[order][starts].argmax(axis=1)
        table = {"profile": np.asarray(rows["profile"], dtype=object)[order][starts], "field": field, "shots": shots}
        table |= {"given": levels[given.argmax(axis=1)], "voted": levels[chosen], "agreement": counts / shots}
        largest = np.log(np.minimum(np.maximum(shots, 2), len(levels)))
        frame = pd.DataFrame(table | {"strength": np.clip(spread / largest, 0, 1)})
        parts.append(frame[counts < shots])
    columns = ["profile", "field", "shots", "given", "voted", "agreement", "strength"]
    found = pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=columns)
    return found.sort_values(["strength", "profile", "field"], ascending=[False, True, True], ignore_index=True)


def by_group(rows: pd.DataFrame) -> tuple[Codes, Codes, Codes]:
    """The persons of some images, in an order that does not depend on that of the rows.

    Returns:
        int64 arrays: the person of each row (0 up, by sorted profile), the rows' positions sorted by person and
        image_id, and where each person begins in these.
    """
    person, _ = pd.factorize(rows["profile"], sort=True)
    image, _ = pd.factorize(rows["image_id"], sort=True)
    order = np.lexsort((image, person))
    return person, order, np.flatnonzero(np.diff(person[order], prepend=-1))


def check(rows: pd.DataFrame, probabilities: npt.NDArray[np.floating], scheme: LabelSpace) -> None:
    """Make sure that there is a row of probabilities for every image.

    Raises:
        ValueError: if the shapes do not go together.
    """
    expected = (len(rows), len(scheme.classes))
    if np.shape(probabilities) != expected:
        raise ValueError(f"probabilities have the shape {np.shape(probabilities)}, expected {expected}")


def _counts(person: Codes, level: Codes, persons: int, levels: int) -> Codes:
    """How often each person has each level: shape (persons, levels)."""
    return np.bincount(person * levels + level, minlength=persons * levels).reshape(persons, levels)


def _entropy(probabilities: Floats) -> Floats:
    return -(probabilities * np.log(probabilities)).sum(axis=-1)


def _mean(values: npt.NDArray[Any]) -> float:
    return float(values.mean()) if len(values) else 1.0
