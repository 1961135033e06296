"""The folds of nested cross-validation: those of the split, or whole groups dealt to new ones."""

import numpy as np
import numpy.typing as npt

from foldvote.errors import UserError
from foldvote.runtime.seeding import generator

Codes = npt.NDArray[np.integer]

PARTS = 5  # folds where the split has none that can be used


def outer_folds(folds: Codes, groups: Codes, seed: int, count: int = PARTS) -> npt.NDArray[np.int64]:
    """The folds of nested cross-validation: the split's own where there are two or more and every image is in one.

    A hold-out has one fold, and some images may be in none (-1). There the models saw none of the images that are
    evaluated, so that any split by groups will do: the groups are dealt to `count` new folds.

    Args:
        folds: the fold of each image in the split, shape (images,); -1: none.
        groups: the code of each image's group, shape (images,).
        seed: the run's seed.
        count: number of new folds.

    Returns:
        int64 (images,).

    Raises:
        UserError: if new folds are needed and there are fewer than two groups.
    """
    known = np.unique(np.asarray(folds))
    if len(known) >= 2 and known[0] >= 0:
        return np.asarray(folds, np.int64)
    return split_groups(groups, count, seed)


def split_groups(groups: Codes, count: int, seed: int) -> npt.NDArray[np.int64]:
    """Whole groups dealt to folds of about equal size, the same in any order of the images.

    Args:
        groups: the code of each image's group, shape (images,).
        count: number of folds; as many as there are groups where these are fewer.
        seed: the run's seed.

    Returns:
        The fold of each image, int64 (images,), 0 to count - 1.

    Raises:
        UserError: if there are fewer than two groups.
    """
    codes, positions, sizes = np.unique(np.asarray(groups), return_inverse=True, return_counts=True)
    count = min(count, len(codes))
    if count < 2:
        raise UserError("vote: a fitted vote needs at least two persons among the validated images; choose the mean")
    order = generator(seed, "vote", "parts").permutation(len(codes))
    order = order[np.argsort(-sizes[order], kind="stable")]
    # The largest groups first, dealt to the folds from 0 up and then back down, so that no fold always comes first.
    turn = np.arange(len(codes)) % (2 * count)
    fold_of = np.empty(len(codes), np.int64)
    fold_of[order] = np.minimum(turn, 2 * count - 1 - turn)
    return fold_of[positions]
