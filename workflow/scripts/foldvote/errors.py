"""The one exception whose text is meant for the user."""

import difflib
import re
from collections.abc import Iterable

INTERRUPTED = 75  # exit code of a job that was told to stop and can go on later (EX_TEMPFAIL of sysexits.h)
MOST_TOLD = 20
MOST_SHOWN = 5
_MOST_NEAR = 10
_LEAST_BEGINNING = 3  # letters that say what a word is that begins with them


class UserError(Exception):
    """Input that foldvote will not work with: each fault is one line that says what, where and what to do.

    Args:
        faults: one line for each thing that is wrong; all are told at once.
    """

    def __init__(self, *faults: str) -> None:
        super().__init__("\n".join(faults))
        self.faults = faults


class Interrupted(Exception):
    """The job was asked to stop; its state is saved and the same command goes on from there."""


def raise_all(faults: Iterable[str], most: int = MOST_TOLD) -> None:
    """Raise one `UserError` with every fault, or nothing when there is none.

    Args:
        faults: the lines; beyond `most` they are only counted.
        most: how many lines are told in full.

    Raises:
        UserError: if there is at least one fault.
    """
    told = list(faults)
    if not told:
        return
    if len(told) > most:
        told = [*told[:most], f"... and {len(told) - most} more of this kind"]
    raise UserError(*told)


def first_line(error: BaseException) -> str:
    """The first line of an error's text, or its type where it has none."""
    return (str(error) or type(error).__name__).splitlines()[0]


def first_few(names: Iterable[str]) -> str:
    """Up to five names separated by commas, with `...` if there are more."""
    texts = [str(name) for name in names]
    return ", ".join(texts[:MOST_SHOWN]) + (", ..." if len(texts) > MOST_SHOWN else "")


def did_you_mean(name: str, known: Iterable[str], cutoff: float = 0.5) -> str:
    """`"; did you mean 'x'?"`, or nothing where no known name is near. Upper and lower case count as equal.

    Of the near names, one that begins as the given one is preferred, then the one with the fewest letters to change;
    of these, one that differs in a doubled letter, then one of the same length.

    Args:
        name: what was written.
        known: what could be meant.
        cutoff: the least similarity, from 0 to 1 (difflib); high where most known names are similar, such as ids, and
            where a wrong guess that is followed does harm, such as keys.
    """
    lowered: dict[str, str] = {word.strip().lower(): word for word in known}
    text = name.lower()
    near = difflib.get_close_matches(text, list(lowered), n=_MOST_NEAR, cutoff=cutoff)
    nearest = min(near, key=lambda word: (*_apart(text, word), near.index(word)), default=None)
    return "" if nearest is None else f"; did you mean {lowered[nearest]!r}?"


def _apart(text: str, word: str) -> tuple[bool, int, bool, int]:
    """How far a word is from a text: the smaller, the nearer."""
    doubled = _undoubled(text) == _undoubled(word)
    distances = list(range(len(word) + 1))  # Levenshtein's, row by row
    for row, letter in enumerate(text, start=1):
        diagonal, distances[0] = distances[0], row
        for column, other in enumerate(word, start=1):
            least = min(diagonal + (letter != other), distances[column] + 1, distances[column - 1] + 1)
            diagonal, distances[column] = distances[column], least
    begins = len(text) >= _LEAST_BEGINNING and word.startswith(text)
    return not begins, distances[-1], not doubled, abs(len(word) - len(text))


def _undoubled(text: str) -> str:
    return re.sub(r"(.)\1+", r"\1", text)
