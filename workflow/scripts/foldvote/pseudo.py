"""Pseudo-labels: test images that a first round of models is sure of (Lee, ICML workshops 2013), with soft targets.

A member of fold k learns from what first-round members of fold k say alone. None of those has seen the persons of fold
k, so that its out-of-fold predictions of them stay honest. Imports no torch.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from foldvote.errors import Refusal, refuse_all
from foldvote.predictions import places, read_member
from foldvote.vote import vote


@dataclass(frozen=True)
class PseudoInputs:
    """What pseudo-labels are made from.

    Attributes:
        pixels: packed test images of the recipe's size and region.
        predictions: test predictions of this fold's member of each first-round model.
    """

    pixels: Path
    predictions: tuple[Path, ...]


@dataclass(frozen=True)
class PseudoLabels:
    """Test images to learn from.

    Attributes:
        image_ids: their ids, sorted.
        shares: float32 (images, classes), rows sum to 1: the mean of the first round's probabilities.
        data_sha256: digest of the test manifest.
        sources: SHA-256 of the weights that predicted them.
    """

    image_ids: list[str]
    shares: np.ndarray
    data_sha256: str
    sources: list[str]


def pseudo_labels(
    paths: Sequence[Path], fold: int, confidence: float, classes: Sequence[str], split_sha256: str
) -> PseudoLabels:
    """The test images that the first round is sure of.

    Args:
        paths: `<results>/test/model=<m>/fold=<fold>/predictions.parquet` of each first-round model.
        fold: the fold of the member that learns.
        confidence: smallest probability of the likeliest class, after the mean over models and views.
        classes: class names in the order of their codes.
        split_sha256: digest of the certified folds.

    Raises:
        Refusal: if a file is of another fold, split or task, or the files hold different images.
    """
    members = [read_member(path, "test", classes, split_sha256) for path in sorted(paths)]
    ids = pa.array(sorted(members[0].ids.to_pylist()), pa.string())
    refuse_all(
        f"{member.path}: is of fold {member.fold}, and fold {fold} may learn from its own alone; run `snakemake` again"
        for member in members
        if member.fold != fold
    )
    order = [places(ids, member.ids) for member in members]
    if any(len(member.ids) != len(ids) or (own < 0).any() for member, own in zip(members, order, strict=True)):
        raise Refusal(f"{members[0].path}: holds other test images than the other models; run `snakemake` again")
    mean = vote(np.stack([member.mean[own] for member, own in zip(members, order, strict=True)]))
    sure = mean.max(axis=1) >= confidence
    return PseudoLabels(
        ids.filter(pa.array(sure)).to_pylist(),
        mean[sure].astype(np.float32),
        members[0].record["data_sha256"],
        [member.record["weights_sha256"] for member in members],
    )
