"""Image ids: comparison with the expected ids, and positions in other lists."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from foldvote.errors import first_few


def id_faults(
    path: str | Path, ids: Sequence[str], expected: Sequence[str], source: str | Path, remedy: str = ""
) -> list[str]:
    """Compare ids with the expected ids, in any order.

    Args:
        path: the file of `ids`, for messages.
        ids: the ids to check.
        expected: the ids that should be there, once each.
        source: the file of `expected`, for messages.
        remedy: what to do; by default: keep duplicates once, add missing ids, remove unknown ones.

    Returns:
        One line each for duplicate, missing and unknown ids; empty if there are none.
    """
    faults = []
    counted = pd.Series(list(ids), dtype="object").value_counts(sort=False)
    doubled = counted.index[counted > 1]
    missing = pd.Index(list(expected), dtype="object").difference(counted.index)
    surplus = counted.index.difference(pd.Index(list(expected), dtype="object"))
    for names, what, usual in (
        (sorted(doubled), "ids stand twice or more", "keep each once"),
        (missing, f"ids of {source} are missing", "add them"),
        (surplus, f"ids are not in {source}", "remove them"),
    ):
        if len(names):
            faults.append(f"{path}: {len(names)} {what}: {first_few(names)}; {remedy or usual}")
    return faults


def positions_in(ids: pa.Array, among: pa.Array) -> npt.NDArray[np.int64]:
    """The position of each id in another list of ids.

    Args:
        ids: the ids to look up.
        among: the ids to search, each once.

    Returns:
        int64 array of shape (ids,); -1 for an id that is not there.
    """
    if ids.equals(among):
        return np.arange(len(ids))
    found = pc.index_in(ids, value_set=among)
    return found.fill_null(-1).to_numpy(zero_copy_only=False).astype(np.int64)


class PositionsIn:
    """`positions_in` for many lists of ids, of which neighbours are often the same: the last answer is kept.

    Args:
        among: the ids to search, each once.
    """

    def __init__(self, among: pa.Array) -> None:
        self.among = among
        self._ids = among
        self._positions = np.arange(len(among))

    def of(self, ids: pa.Array) -> npt.NDArray[np.int64]:
        """The position of each id, int64 (ids,); -1 for an id that is not there."""
        if not ids.equals(self._ids):
            self._ids, self._positions = ids, positions_in(ids, self.among)
        return self._positions
