"""Image ids: looked up in other lists, and compared with the ids that were expected."""

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

MOST_SHOWN = 5


def id_faults(
    path: str | Path, ids: Sequence[str], expected: Sequence[str], source: str | Path, remedy: str = ""
) -> list[str]:
    """Lines for ids that are doubled, missing or surplus in `path` against those of `source`; the order is free.

    `remedy` says what to do; without it: keep once, add, remove.
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


def first_few(names: Iterable[str]) -> str:
    """Up to five names, and dots where there are more."""
    told = [str(name) for name in names]
    return ", ".join(told[:MOST_SHOWN]) + (", ..." if len(told) > MOST_SHOWN else "")


def positions_in(ids: pa.Array, among: pa.Array) -> npt.NDArray[np.int64]:
    """The place of each id among others, -1 where it is not there: int64 (ids,)."""
    if ids.equals(among):
        return np.arange(len(ids))
    found = pc.index_in(ids, value_set=among)
    return found.fill_null(-1).to_numpy(zero_copy_only=False).astype(np.int64)
