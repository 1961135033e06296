"""The members' timings, as training and predictions write them."""

import math
from collections.abc import Iterable
from pathlib import Path

from foldvote.errors import UserError, raise_all
from foldvote.io.files import read_json
from foldvote.io.paths import MemberKey, member_of


def read_timings(paths: Iterable[str | Path]) -> dict[MemberKey, dict[str, float]]:
    """Read the members' timings.

    Args:
        paths: files `<results>/timings/<stage>/model=<m>/fold=<k>.json` that hold {"seconds": float, ...}.

    Returns:
        For each (model, fold) the seconds of each stage: train, oof, reserve, test.

    Raises:
        UserError: if a file is missing, lies elsewhere, or its seconds are no finite number from 0 up.
    """
    timings: dict[MemberKey, dict[str, float]] = {}
    faults: list[str] = []
    for path in sorted(Path(path) for path in paths):
        try:
            content, key = read_json(path), member_of(path)
        except UserError as error:
            faults += error.faults
            continue
        seconds = content.get("seconds") if isinstance(content, dict) else None
        if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not 0 <= seconds < math.inf:
            faults.append(f"{path}: seconds is {seconds!r}, not a number from 0 up; delete the file and run again")
            continue
        timings.setdefault(key, {})[path.parent.parent.name] = float(seconds)
    raise_all(faults)
    return timings
