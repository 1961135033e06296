"""The reserve: whole groups that are kept out of every fold, on which the submitted vote is scored.

An image of a fold is predicted only by that fold's members; an image of the reserve by all members, as a test image is.
So the reserve alone says what the vote of all members is worth.
"""

import numpy as np
import numpy.typing as npt
import pandas as pd

from foldvote.errors import UserError
from foldvote.runtime.seeding import generator

RESERVE = -2  # the fold of its rows


def draw_reserve(rows: pd.DataFrame, share: float, k: int, seed: int) -> npt.NDArray[np.bool_]:
    """Draw whole groups for the reserve, from every stratum its share.

    Groups are tried in a random order. One is taken while none of its strata has its share (rounded) and each would
    keep `k` groups for the folds, so that a rare class is never taken away from training.

    Args:
        rows: one row per image with the columns group and stratum.
        share: of the groups, between 0 and 1.
        k: number of folds.
        seed: the run's seed.

    Returns:
        Whether each row is in the reserve, bool (images,). It does not depend on the order of the rows.

    Raises:
        UserError: if no group can be spared.
    """
    strata = rows.drop_duplicates(["group", "stratum"]).groupby("group", sort=True)["stratum"].agg(sorted)
    total = strata.explode().value_counts()
    most = np.minimum((total * share).round(), total - k).clip(lower=0).astype(int).to_dict()
    wanted = round(share * len(strata))
    taken: set[str] = set()
    for name in strata.index[generator(seed, "reserve").permutation(len(strata))]:
        if len(taken) < wanted and all(most[stratum] > 0 for stratum in strata[name]):
            taken.add(name)
            for stratum in strata[name]:
                most[stratum] -= 1
    if not taken:
        raise UserError(
            f"folds.reserve: {share:g} of {len(strata)} groups leaves no group to keep out, as every stratum needs {k} "
            "groups for the folds; raise folds.reserve, lower folds.k, or set folds.reserve: 0"
        )
    return rows["group"].isin(taken).to_numpy()


def reserve_rows(folds: pd.DataFrame) -> pd.DataFrame:
    """The rows of the reserve, sorted by image_id; none where there is no reserve."""
    return folds[folds["fold"] == RESERVE].sort_values("image_id", kind="stable")
