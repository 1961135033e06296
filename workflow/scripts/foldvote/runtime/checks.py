"""Findings of a check: ok, warning or error, with a text and a remedy."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

Level = Literal["ok", "warning", "error"]


@dataclass(frozen=True)
class Finding:
    """One finding.

    Attributes:
        level: `ok`, `warning` (somebody should look at it) or `error` (a run fails, or its results cannot be trusted).
        text: what was found, with numbers.
        remedy: what to do; empty if there is nothing to do.
        place: the anchor of a section of the page, or the name of the thing that was checked.
    """

    level: Level
    text: str
    remedy: str = ""
    place: str = ""


def as_text(findings: Iterable[Finding]) -> str:
    """The findings as lines for a terminal, in their order, and a last line with the number of each level."""
    findings = list(findings)
    width = max((len(finding.place) for finding in findings), default=0)
    lines = []
    for finding in findings:
        lines.append(f"{finding.level:<7} {finding.place:<{width}}  {finding.text}")
        lines += [f"{'':<7} {'':<{width}}  -> {finding.remedy}"] if finding.remedy else []
    return "\n".join([*lines, "", tally(findings)])


def tally(findings: Iterable[Finding]) -> str:
    """The number of findings of each level that occurs, such as `1 error, 3 warnings, 9 ok`."""
    levels = [finding.level for finding in findings]
    errors, warnings, ok = (levels.count(level) for level in ("error", "warning", "ok"))
    counts = [f"{errors} error{'s' * (errors != 1)}"] if errors else []
    counts += [f"{warnings} warning{'s' * (warnings != 1)}"] if warnings else []
    return ", ".join([*counts, *([f"{ok} ok"] if ok else [])])
