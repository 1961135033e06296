"""Simulated candidates of an ensemble."""

import numpy as np
import pandas as pd
from hypothesis import strategies as st

from foldvote.config.ensemble import METHOD_NAMES, OF_METADATA
from foldvote.data.label_space import factor_label_space
from foldvote.ensemble.candidates import Candidates
from foldvote.evaluation.probabilities import softmax
from foldvote.runtime.seeding import generator

SEEDS = st.integers(0, 2**32)
LABEL_SPACE = factor_label_space({"mask": ("on", "wrong", "off"), "age": ("young", "old")})
BUILT_IN = [name for name in METHOD_NAMES if name not in ("lightgbm", *OF_METADATA)]
ALL = [*BUILT_IN, "mean+expected", "mean+offsets", "greedy+offsets"]


def drawn(seed, skills=(2.0, 1.5, 1.0), views=2, images=300, label_space=LABEL_SPACE, metadata=False):
    """Candidates that know the labels as well as their model's skill, and the labels, of which some are rare.

    With `metadata` an age, some of them missing, that tells the first half of the classes from the others, and a site.
    """
    draws, classes = generator(seed, "votes"), len(label_space.classes)
    labels = draws.choice(classes, images, p=1 / np.arange(1, classes + 1) / (1 / np.arange(1, classes + 1)).sum())
    names, models, logits = [], [], []
    for number, skill in enumerate(skills):
        own = skill * np.eye(classes)[labels] + draws.normal(0, 1, (images, classes))
        for view in range(views):
            names.append(f"net{number}/view{view}")
            models.append(f"net{number}")
            logits.append(own + draws.normal(0, 0.5, (images, classes)))
    ages = np.where(draws.random(images) < 0.1, np.nan, 40 + 20 * (labels >= classes / 2) + draws.normal(0, 5, images))
    table = pd.DataFrame({"age": ages, "site": draws.choice(["north", "south"], images)}) if metadata else None
    return Candidates(tuple(names), tuple(models), softmax(np.stack(logits)).astype(np.float32), table), labels


def noise(candidates, seed=9):
    """The candidates and one more model with random predictions."""
    draws = generator(seed, "noise").normal(0, 2, candidates.probabilities.shape[1:])
    more = softmax(draws).astype(np.float32)[None]
    names, models = (*candidates.names, "noise/identity"), (*candidates.models, "noise")
    return Candidates(names, models, np.concatenate([candidates.probabilities, more]), candidates.metadata)
