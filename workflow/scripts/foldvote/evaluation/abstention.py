"""Which answers to leave to the vote, and which to hand to a person: those with a low confidence.

The threshold is the lowest one with which errors of known groups, and one more group whose answers are all wrong, stay
within what is allowed. Without that group, few answers that happen to be right would seem to reach any accuracy. Where
errors are counted among all answers, this is conformal risk control (Angelopoulos, Bates, Fisch, Lei and Schuster, ICLR
2024): on new groups the share of errors is expected to be within what is allowed, if groups have equally many images.
"""

from typing import Literal

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]
Rights = npt.NDArray[np.bool_]
Answers = Literal["kept", "all"]
NONE = np.inf  # no answer is kept


def keep_from(confidence: Array, right: Rights, groups: int, accuracy: float, answers: Answers) -> float:
    """The lowest confidence with which an answer is kept, so that as few as possible are handed over.

    Args:
        confidence: of each answer, shape (images,).
        right: whether it is right, shape (images,).
        groups: number of groups that the images come from.
        accuracy: the wanted share of right answers.
        answers: among which: `kept`: those that nobody looks at; `all`: all, where a person answers all that are handed
            over rightly.

    Returns:
        A value of `confidence`, or `NONE`. Answers of equal confidence are kept or handed over together.
    """
    order = np.argsort(-confidence, kind="stable")
    unseen = len(order) / max(groups, 1)
    ordered, kept = confidence[order], np.arange(1, len(order) + 1)
    wrong = np.cumsum(~right[order]) + unseen
    allowed = (1 - accuracy) * ((kept if answers == "kept" else len(order)) + unseen)
    last_of_equals = np.append(ordered[1:] != ordered[:-1], True)[: len(order)]
    enough = np.flatnonzero((wrong <= allowed + 1e-9) & last_of_equals)
    return float(ordered[enough[-1]]) if len(enough) else NONE


def keep_best(confidence: Array, share: float) -> float:
    """The confidence from which on answers are kept, so that about `share` of them is handed over."""
    handed = int(share * len(confidence))
    return float(np.partition(confidence, handed)[handed]) if handed < len(confidence) else NONE
