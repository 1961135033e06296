"""The job of a probe: a logistic regression on the features of a frozen net, written as an ordinary member."""

import time
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from foldvote.config.recipe import Recipe
from foldvote.inference.feature_files import check_features, features_origin, read_features
from foldvote.inference.features import probe_head
from foldvote.inference.tta import IDENTITY
from foldvote.io.files import write_json
from foldvote.models.factory import build_model
from foldvote.models.linear_probe import LinearProbe, choose_strength, fit_probe
from foldvote.runtime.job_log import log
from foldvote.runtime.resources import JobResources
from foldvote.runtime.seeding import MemberSeeds
from foldvote.splits.folds import read_folds
from foldvote.training.loop import TrainResult
from foldvote.training.state import MemberSpec, Progress, build_spec
from foldvote.training.train_member import MemberFiles, write_member
from foldvote.training.training_set import MemberInputs
from foldvote.training.validation import score_logits
from foldvote.training.weight_averaging import State, clone_state


def train_probe(
    seeds: MemberSeeds,
    recipe: Recipe,
    code: str,
    inputs: MemberInputs,
    features: Path,
    files: MemberFiles,
    resources: JobResources,
) -> None:
    """Fit the head of a member on features of the training part of its fold, and write the member.

    Args:
        seeds: seed, model name and fold.
        recipe: the recipe of the probe.
        code: digest of the code.
        inputs: what it learns from.
        features: the features of the training images.
        files: what to write; the weights are those of the pretrained net, with the head.
        resources: the resources of this job.

    Raises:
        UserError: if inputs do not belong together.
    """
    device, spec = resources.device(recipe), build_spec(seeds, recipe, code, inputs)
    chosen, started = spec.training_set, time.monotonic()
    expected = features_origin(recipe, spec.origin["pretrained_sha256"], spec.origin["data_sha256"])
    check_features(features, expected, [IDENTITY.name])
    known = read_features(features, chosen.training["image_id"].tolist(), IDENTITY.name)
    learnt, weights = chosen.training["label"].to_numpy(np.int64), chosen.weights
    classes, groups = len(chosen.label_space.classes), _groups(inputs, chosen.training["image_id"])
    strength = choose_strength(known, learnt, groups, classes, seeds.key("probe"), weights)
    fitted = fit_probe(known, learnt, classes, strength, weights)
    log(f"{spec.name}: fitted on {len(known):,} images x {known.shape[1]:,} features, penalty {strength:g}")
    validated = read_features(features, chosen.validation["image_id"].tolist(), IDENTITY.name)
    labels = chosen.validation["label"].to_numpy(np.int64)
    scores, _ = score_logits(fitted.logits(validated).astype(np.float32), labels, chosen.label_space, spec.metrics)
    seconds = time.monotonic() - started
    row = {"epoch": 1, "train_loss": fitted.loss, **scores, "lr": 0.0, "seconds": seconds, "best": True}
    state = _state(spec, fitted)
    write_member(TrainResult(state, state, [1], scores, pd.DataFrame([row]), 1), spec, device, files, Progress())
    write_json(files.timing, {"seconds": seconds, "images": len(known), "device": "CPU"})


def _groups(inputs: MemberInputs, ids: pd.Series) -> np.ndarray:
    """The group of each image."""
    folds, _ = read_folds(inputs.split.folds, inputs.split.certificate)
    return folds.drop_duplicates("image_id").set_index("image_id")["group"].reindex(ids).to_numpy(str)


def _state(spec: MemberSpec, fitted: LinearProbe) -> State:
    """The state of the pretrained net with the fitted layer as its classifier."""
    inputs, label_space = spec.inputs, spec.training_set.label_space
    model = build_model(spec.recipe, label_space, spec.seeds.key("init"), inputs.pretrained, inputs.bands)
    head = probe_head(model, spec.recipe.net)
    with torch.no_grad():
        head.weight.copy_(torch.from_numpy(fitted.weight))
        head.bias.copy_(torch.from_numpy(fitted.bias))
    return clone_state(model.state_dict())
