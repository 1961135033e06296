"""Whether the shots of one person agree in what belongs to the person, such as gender.

The labels decide which factors belong to a person, not the names of the factors. The vote over the shots of a person is
for display only: test images come without a person id, so it must never be part of a submission.
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
_PIECE = 4_096  # images whose probabilities are computed at once
NEARLY_EVERY = 0.95  # a field belongs to the person if it is constant within this share of the persons


def fields(label_space: LabelSpace) -> dict[str, tuple[str, ...]]:
    """The parts of a label: the factors with their levels, or `label` with the classes if there are no factors."""
    return label_space.factors or {LABEL: label_space.classes}


def level_codes(label_space: LabelSpace, field: str) -> Codes:
    """Level code of `field` for every class: int64 array of shape (classes,)."""
    return label_space.level_codes(field) if label_space.factors else np.arange(len(label_space.classes))


def marginals(probabilities: npt.NDArray[np.floating], label_space: LabelSpace, field: str) -> Floats:
    """Probability of each level of a field: the sum over the classes that share it.

    Args:
        probabilities: shape (images, classes).
        label_space: the classes.
        field: one of `fields(label_space)`.

    Returns:
        float64 of shape (images, levels).
    """
    wide = np.asarray(probabilities, np.float64)
    return (
        wide @ np.eye(len(fields(label_space)[field]))[level_codes(label_space, field)] if label_space.factors else wide
    )


def group_fields(rows: pd.DataFrame, label_space: LabelSpace) -> list[str]:
    """The fields that belong to the person: constant within nearly every person of two or more shots.

    Args:
        rows: one row per image: profile, label (code).
        label_space: the classes.

    Returns:
        Their names in the order of the label space; empty if no person has two shots.
    """
    person, names = pd.factorize(rows["profile"])
    several = np.bincount(person, minlength=len(names)) > 1
    if not several.any():
        return []
    found = []
    for field in fields(label_space):
        given = level_codes(label_space, field)[rows["label"].to_numpy(np.int64)]
        low, high = np.full(len(names), np.iinfo(np.int64).max), np.full(len(names), -1)
        np.minimum.at(low, person, given)
        np.maximum.at(high, person, given)
        if (low == high)[several].mean() >= NEARLY_EVERY:
            found.append(field)
    return found


def group_vote(
    rows: pd.DataFrame,
    probabilities: npt.NDArray[np.floating],
    label_space: LabelSpace,
    own: Sequence[str] | None = None,
) -> Floats:
    """Pool the probabilities of the fields that belong to the person over the shots of each person.

    The joint probabilities of these fields become their normalised geometric mean over the shots, a logarithmic opinion
    pool (Genest and Zidek, Statistical Science 1986). The other fields keep their probabilities given these fields. A
    person with one shot keeps its probabilities, except that values below 2.2e-16 are raised to that.

    Args:
        rows: one row per image: image_id, profile, label (code).
        probabilities: shape (images, classes), rows sum to 1.
        label_space: the classes.
        own: fields that belong to the person; None finds them with `group_fields`.

    Returns:
        float64 of shape (images, classes), in the order of `rows`; rows sum to 1.

    Raises:
        ValueError: if the shapes do not match.
    """
    check(rows, probabilities, label_space)
    own = group_fields(rows, label_space) if own is None else list(own)
    wide = np.asarray(probabilities, np.float64)
    if not own or rows.empty:
        return wide.copy()
    code = label_space.restricted(own)[1] if label_space.factors else np.arange(len(label_space.classes))
    voted = np.maximum(wide, SMALLEST)
    joint = voted @ np.eye(code.max() + 1)[code]
    person, order, starts = by_group(rows)
    means = np.add.reduceat(np.log(joint[order]), starts, axis=0) / np.bincount(person)[:, None]
    pooled = np.exp(means - means.max(axis=1, keepdims=True))
    pooled /= pooled.sum(axis=1, keepdims=True)
    for start in range(0, len(voted), _PIECE):
        piece = slice(start, start + _PIECE)
        voted[piece] /= joint[piece][:, code]
        voted[piece] *= pooled[person[piece]][:, code]
        voted[piece] /= voted[piece].sum(axis=1, keepdims=True)
    return voted


def consistency(rows: pd.DataFrame, probabilities: npt.NDArray[np.floating], label_space: LabelSpace) -> dict[str, Any]:
    """Measure how far the shots of each person agree, and what a vote over them would score.

    Args:
        rows: one row per image: image_id, profile, label (code).
        probabilities: out-of-fold, shape (images, classes), rows sum to 1.
        label_space: the classes.

    Returns:
        A dict that can be written as JSON. `images`, `persons`, `persons_of_several`: numbers of images, of persons and
        of persons with two or more shots. `fields`: for each field that belongs to the person `unanimous` (share of
        these persons whose shots all get the same level), `agreement` (mean share of a person's shots that get its
        most frequent level), `image_accuracy` and `vote_accuracy` (share of images whose level is right, for single
        shots and after the vote). `image` and `voted`: accuracy and macro-F1 of the classes before and after
        `group_vote`. Shares are 1.0 if no person has two shots.

    Raises:
        ValueError: if the shapes do not match.
    """
    check(rows, probabilities, label_space)
    labels, number = rows["label"].to_numpy(np.int64), len(label_space.classes)
    own = group_fields(rows, label_space)
    voted = group_vote(rows, probabilities, label_space, own)
    person, _, _ = by_group(rows)
    shots = np.bincount(person)
    several = shots > 1
    found = {}
    for field in own:
        given = level_codes(label_space, field)[labels]
        single = marginals(probabilities, label_space, field).argmax(axis=1)
        agreeing = _counts(person, single, len(shots), len(fields(label_space)[field])).max(axis=1)[several]
        found[field] = {
            "unanimous": _mean(agreeing == shots[several]),
            "agreement": _mean(agreeing / shots[several]),
            "image_accuracy": accuracy(given, single),
            "vote_accuracy": accuracy(given, marginals(voted, label_space, field).argmax(axis=1)),
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


def disagreeing_groups(
    rows: pd.DataFrame, probabilities: npt.NDArray[np.floating], label_space: LabelSpace
) -> pd.DataFrame:
    """List persons whose shots are predicted with different levels of a field of the person, the worst first.

    The strength is the Jensen-Shannon divergence of the shots' probabilities (Lin, IEEE Transactions on Information
    Theory 1991) divided by its largest possible value: from 0 (equal predictions) to 1.

    Args:
        rows: one row per image: image_id, profile, label (code).
        probabilities: out-of-fold, shape (images, classes), rows sum to 1.
        label_space: the classes.

    Returns:
        One row per person and field: profile, field, shots, given (the most frequent label), voted (the level that
        `group_vote` gives), agreement (share of the shots with the most frequent prediction), strength.

    Raises:
        ValueError: if the shapes do not match.
    """
    check(rows, probabilities, label_space)
    own = group_fields(rows, label_space)
    voted = group_vote(rows, probabilities, label_space, own)
    person, order, starts = by_group(rows)
    shots = np.bincount(person)
    parts = []
    for field in own:
        levels = np.array(fields(label_space)[field], dtype=object)
        predicted = np.clip(marginals(probabilities, label_space, field), SMALLEST, 1.0)
        mean = np.add.reduceat(predicted[order], starts, axis=0) / shots[:, None]
        spread = _entropy(mean) - np.add.reduceat(_entropy(predicted)[order], starts) / shots
        counts = _counts(person, predicted.argmax(axis=1), len(shots), len(levels)).max(axis=1)
        given = _counts(
            person, level_codes(label_space, field)[rows["label"].to_numpy(np.int64)], len(shots), len(levels)
        )
        chosen = marginals(voted, label_space, field)[order][starts].argmax(axis=1)
        table = {"profile": np.asarray(rows["profile"], dtype=object)[order][starts], "field": field, "shots": shots}
        table |= {"given": levels[given.argmax(axis=1)], "voted": levels[chosen], "agreement": counts / shots}
        largest = np.log(np.minimum(np.maximum(shots, 2), len(levels)))
        frame = pd.DataFrame(table | {"strength": np.clip(spread / largest, 0, 1)})
        parts.append(frame[counts < shots])
    columns = ["profile", "field", "shots", "given", "voted", "agreement", "strength"]
    found = pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=columns)
    return found.sort_values(["strength", "profile", "field"], ascending=[False, True, True], ignore_index=True)


def by_group(rows: pd.DataFrame) -> tuple[Codes, Codes, Codes]:
    """Group images by person. The result does not depend on the order of the rows.

    Args:
        rows: one row per image: image_id, profile.

    Returns:
        Three int64 arrays: the number of each row's person (from 0, by sorted profile); the positions of the rows,
        sorted by person and image_id; and the index at which each person starts in these positions.
    """
    person, _ = pd.factorize(rows["profile"], sort=True)
    image, _ = pd.factorize(rows["image_id"], sort=True)
    order = np.lexsort((image, person))
    return person, order, np.flatnonzero(np.diff(person[order], prepend=-1))


def check(rows: pd.DataFrame, probabilities: npt.NDArray[np.floating], label_space: LabelSpace) -> None:
    """Check that there is one row of probabilities per image and one column per class.

    Args:
        rows: one row per image.
        probabilities: expected to have the shape (images, classes).
        label_space: the classes.

    Raises:
        ValueError: if the shapes do not match.
    """
    expected = (len(rows), len(label_space.classes))
    if np.shape(probabilities) != expected:
        raise ValueError(f"probabilities have the shape {np.shape(probabilities)}, expected {expected}")


def _counts(person: Codes, level: Codes, persons: int, levels: int) -> Codes:
    """How often each person has each level: shape (persons, levels)."""
    return np.bincount(person * levels + level, minlength=persons * levels).reshape(persons, levels)


def _entropy(probabilities: Floats) -> Floats:
    return -(probabilities * np.log(probabilities)).sum(axis=-1)


def _mean(values: npt.NDArray[Any]) -> float:
    return float(values.mean()) if len(values) else 1.0
