"""Sets of classes that contain the truth with a wanted probability: conformal prediction with groups as the unit.

Split conformal prediction (Vovk, Gammerman and Shafer, "Algorithmic Learning in a Random World", 2005) asks for
exchangeable images. The images of a group (a person) are not exchangeable with those of another one: only the groups
are. So a group counts once, however many images it has: each of its images weighs 1 / (number of its images), and the
new group, which is not known yet, counts as one that is missed (Lee, Barber and Willett, "Distribution-free inference
with hierarchical data", 2023; Dunn, Wasserman and Ramdas, "Distribution-free prediction sets for two-layer hierarchical
models", JASA 2023). The set of a random image of a new group then contains its true class with at least the wanted
probability, whatever the network.

A class is in the set if its probability is high enough (Sadinle, Lei and Wasserman, "Least ambiguous set-valued
classifiers with bounded error levels", JASA 2019, which has the smallest sets), and the predicted class always is.
Nothing is drawn at random, and the set for a higher coverage contains that for a lower one.
"""

from typing import Literal

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]
Codes = npt.NDArray[np.integer]
Covers = Literal["image", "group"]
_ROUNDING = 1e-9  # of a sum of weights, in groups


def least_probability(
    own: Array, right: npt.NDArray[np.bool_], groups: Codes, coverage: float, covers: Covers = "image"
) -> float:
    """The least probability that a class needs to be in a set.

    Args:
        own: the probability of the true class of each image, shape (images,).
        right: whether it is the predicted one, which is in every set, shape (images,).
        groups: the code of each image's group, shape (images,).
        coverage: the wanted probability, between 0 and 1.
        covers: of what: `image`: that the set of a random image of a new group contains its class; `group`: that the
            sets of all images of a new group do.

    Returns:
        A value of `own`, the same in any order of the images; 1.0 where predictions alone are right often enough; 0.0,
        with which a set holds all classes, if there are too few groups: `coverage` can be at most groups / (groups +
        1).
    """
    own = np.where(right, 1.0, own)
    codes, positions, sizes = np.unique(groups, return_inverse=True, return_counts=True)
    if covers == "group":
        lowest = np.full(len(codes), np.inf)
        np.minimum.at(lowest, positions, own)
        own, weights = lowest, np.ones(len(codes))
    else:
        weights = 1 / sizes[positions]
    order = np.lexsort((weights, -own))
    covered = np.cumsum(weights[order])
    enough = int(np.searchsorted(covered, coverage * (len(codes) + 1) - _ROUNDING))
    return float(own[order[enough]]) if enough < len(own) else 0.0


def prediction_sets(probabilities: Array, predicted: Codes, least: Array | float) -> npt.NDArray[np.bool_]:
    """The classes in the set of each image: those that are likely enough, and always the predicted one.

    Args:
        probabilities: shape (images, classes).
        predicted: predicted codes, shape (images,).
        least: from `least_probability`; one for all images, or one for each, shape (images,).

    Returns:
        bool (images, classes), at least one true in each row.
    """
    sets = probabilities >= np.broadcast_to(np.asarray(least), len(probabilities))[:, None]
    sets[np.arange(len(sets)), predicted] = True
    return sets
