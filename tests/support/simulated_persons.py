"""Simulated persons of the home task and predictions of them."""

import numpy as np
import pandas as pd

from foldvote.config.data import MaskbaseLayout
from foldvote.data.label_space import factor_label_space
from foldvote.data.layouts.maskbase_labels import MASKS
from foldvote.evaluation.probabilities import softmax
from foldvote.runtime.seeding import generator

HOME = factor_label_space({"mask": MASKS, "gender": ("male", "female"), "age": ("under30", "30to59", "60plus")})
NUMERIC = MaskbaseLayout(layout="maskbase").numeric_factor
SHOTS = ("mask1", "mask2", "mask3", "mask4", "mask5", "incorrect_mask", "normal")


def simulated(seed=0, persons=60, sure=3.0, noise=1.0):
    """Rows of seven shots a person, and OOF probabilities (N, C) and (M, N, C) with errors that a person's shots share.

    Gender and age are seen through a face that is the same in all shots, so that the shots of a person err together.
    """
    draws = generator(seed, "simulated")
    gender, age = draws.integers(0, 2, persons), draws.permutation(persons) % 3
    mask = np.tile([0, 0, 0, 0, 0, 1, 2], persons)
    person = np.repeat(np.arange(persons), 7)
    codes = {"mask": mask, "gender": gender[person], "age": age[person]}
    label = mask * 6 + codes["gender"] * 3 + codes["age"]
    shared = {name: draws.normal(0, noise, (persons, len(levels))) for name, levels in HOME.factors.items()}
    models = np.zeros((3, len(label), 18))
    for name, levels in HOME.factors.items():
        of_face = 0 if name == "mask" else shared[name][person]
        for model in models:
            logits = draws.normal(0, noise, (len(label), len(levels))) + of_face
            logits[np.arange(len(label)), codes[name]] += sure
            model += logits[:, HOME.level_codes(name)]
    by_model = softmax(models)
    names = [f"{number:06d}_person" for number in range(persons)]
    rows = pd.DataFrame({"profile": np.repeat(names, 7), "label": label, "fold": person % 5})
    rows.insert(0, "image_id", [f"{name}/{shot}.jpg" for name in names for shot in SHOTS])
    return rows, by_model.mean(axis=0), by_model.astype(np.float32)


def perfect(rows, label_space=HOME):
    return np.eye(len(label_space.classes))[rows["label"]]
