"""Weights of images from the split to the weights of a network, and images that are only trained on."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from foldvote.config.folds import Folds
from foldvote.data.manifest_table import ONLY, WEIGHT
from foldvote.io.parquet import read_table
from foldvote.runtime.seeding import MemberSeeds
from foldvote.splits.folds import make_folds
from foldvote.training.dataloader import Batch
from foldvote.training.state import MemberSpec
from foldvote.training.targets import class_counts
from foldvote.training.training_set import MemberInputs, TrainingSet, build_training_set
from support.tiny_member import Tiny, make_tiny, recipe, write_manifest
from support.tiny_training import train


def split_anew(tiny: Tiny, change: Callable[[pd.DataFrame], pd.DataFrame]) -> None:
    """Change the manifest, and split it again."""
    write_manifest(change(read_table(tiny.manifest)), tiny.manifest)
    make_folds(tiny.manifest, Folds(k=3), 7, tiny.split.folds, tiny.split.certificate, tiny.split.classes)


def of_fold(tiny: Tiny, fold: int = 0, **changes: object) -> TrainingSet:
    return build_training_set(recipe(**changes), fold, MemberInputs(tiny.pixels, tiny.split))


def test_weights_are_one_on_average_and_in_targets_counts_and_draws(tmp_path: Path) -> None:
    tiny = make_tiny(tmp_path)
    plain = of_fold(tiny)
    assert plain.weights is None and plain.targets.ndim == 1
    split_anew(tiny, lambda rows: rows.assign(**{WEIGHT: np.where(rows["label"] == 2, 4.0, 1.0)}))
    chosen = of_fold(tiny, sampler={"by": "class"})
    assert chosen.weights is not None and chosen.weights.mean() == pytest.approx(1)
    assert chosen.weights.max() / chosen.weights.min() == pytest.approx(4)
    assert chosen.training.equals(plain.training)
    counts = class_counts(chosen.targets, 3, chosen.weights)
    times = counts / class_counts(plain.targets, 3)
    assert times[2] == pytest.approx(4 * times[0], rel=1e-4)
    assert counts.sum() == pytest.approx(len(chosen.training), abs=1e-4)
    spec = MemberSpec(
        MemberSeeds(1, "tiny", 0), recipe(sampler={"by": "class"}), MemberInputs(tiny.pixels, tiny.split), chosen
    )
    part = np.bincount(chosen.training["label"], spec.order.chances * chosen.weights)
    np.testing.assert_allclose(part, part[0])
    _, targets, _ = spec.augmented_images[Batch(0, 0, np.arange(8))]
    np.testing.assert_allclose(targets.sum(dim=1), chosen.weights[:8], rtol=1e-6)
    np.testing.assert_array_equal(targets.argmax(dim=1), chosen.training["label"][:8])


def test_a_weight_changes_the_network_and_its_scale_does_not(tmp_path: Path) -> None:
    tiny = make_tiny(tmp_path)
    whole, digests = read_table(tiny.manifest), {}
    for name, weights in (
        ("equal", 1.0),
        ("all 2", 2.0),
        ("own", 1.0 + (whole["label"] == 2)),
        ("scaled", 4.0 + 4 * (whole["label"] == 2)),
    ):
        split_anew(tiny, lambda rows, weights=weights: rows.assign(**{WEIGHT: weights}))
        digests[name] = train(tiny, name, {"epochs": 1})
    assert digests["equal"] == digests["all 2"] != digests["own"] == digests["scaled"]


def test_a_member_is_trained_on_images_that_no_member_is_scored_on(tmp_path: Path) -> None:
    tiny = make_tiny(tmp_path)
    outside = {f"person{person:02d}" for person in (0, 1, 2)}
    split_anew(tiny, lambda rows: rows.assign(**{ONLY: rows["group"].isin(outside)}))
    scored: list[str] = []
    for fold in range(3):
        chosen = of_fold(tiny, fold)
        ids = chosen.training["image_id"]
        assert {name.partition("/")[0] for name in ids} >= outside
        assert len(ids) + len(chosen.validation) == 48
        scored += chosen.validation["image_id"].tolist()
    assert len(scored) == len(set(scored)) == 36
    train(tiny, "member", {"epochs": 1})
