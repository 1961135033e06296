"""Simulated predictions of single members of labelled images."""

import numpy as np
import pyarrow as pa

from foldvote.ensemble.selection import EvaluationRows
from foldvote.ensemble.single_members import SingleMembers
from foldvote.evaluation.probabilities import softmax
from foldvote.runtime.seeding import generator
from support.member_predictions import LABEL_SPACE

VIEWS = ("identity", "hflip", *(f"crop-{number}" for number in range(6)))


def single_members(skills, views=1, members=4, images=300, seed=1, view_noise=0.3, member_noise=1.0, same=False):
    """Members that know the labels as well as their model's skill.

    Each member and view adds noise of its own. `same`: all models predict the same.
    """
    classes = len(LABEL_SPACE.classes)
    labels = generator(seed, "labels").integers(0, classes, images)
    rows = {}
    for model, skill in skills.items():
        name = "same" if same else model
        common = skill * np.eye(classes)[labels] + generator(seed, name).normal(0, 0.7, (images, classes))
        for member in range(members):
            own = common + generator(seed, name, member).normal(0, member_noise, (images, classes))
            for view in VIEWS[:views]:
                noise = generator(seed, name, member, view).normal(0, view_noise, (images, classes))
                rows[model, view, member] = softmax(own + noise)
    model_views = tuple(sorted(((model, view) for model in skills for view in VIEWS[:views]), key="/".join))
    probabilities = np.stack(
        [np.stack([rows[model, view, member] for model, view in model_views]) for member in range(members)]
    ).astype(np.float32)
    groups = np.arange(images) // 2
    evaluation = EvaluationRows(labels, np.full(images, -2), groups)
    ids = pa.array([f"{number:06d}" for number in range(images)], pa.string())
    learnt = dict.fromkeys(skills)
    return SingleMembers("reserve", evaluation, ids, model_views, probabilities, learnt, VIEWS[:views], {}, LABEL_SPACE)
