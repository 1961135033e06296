"""What a check found, in words: all well, worth a look, or broken."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

Level = Literal["ok", "look", "broken"]


@dataclass(frozen=True)
class Finding:
    """One finding.

    Attributes:
        level: `ok`, `look` (a person should look at it) or `broken` (nothing will run like this).
        text: what was found, with numbers.
        remedy: what to do, empty where there is nothing to do.
        place: where to look: the anchor of a page's section, or the thing that was examined.
    """

    level: Level
    text: str
    remedy: str = ""
    place: str = ""


def as_text(verdicts: Iterable[Finding]) -> str:
    """The findings as lines for a terminal, in their order, and how many there are of each level."""
    found = list(verdicts)
    widest = max((len(verdict.place) for verdict in found), default=0)
    lines = []
    for verdict in found:
        lines.append(f"{verdict.level:<7} {verdict.place:<{widest}}  {verdict.text}")
        lines += [f"{'':<7} {'':<{widest}}  -> {verdict.remedy}"] if verdict.remedy else []
    return "\n".join([*lines, "", tally(found)])


def tally(verdicts: Iterable[Finding]) -> str:
    """How many findings there are of each level, in words."""
    levels = [verdict.level for verdict in verdicts]
    words = {"broken": "broken", "look": "worth a look", "ok": "well"}
    return ", ".join(f"{levels.count(level)} {word}" for level, word in words.items() if level in levels)
