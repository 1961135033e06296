"""What one member learns from and is scored on: images, targets and the classes it knows.

Everything that a recipe changes about them is here: a model of some factors, labels treated for training, test images
with pseudo-labels (Lee, ICML workshops 2013). A member is scored on the true labels of its validation groups. A member
of fold k learns from what first-round members of fold k say alone: none of those has seen the groups of fold k, so its
out-of-fold predictions stay honest.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from foldvote.config.data import NumericFactor
from foldvote.config.recipe import Recipe, Treatment
from foldvote.data.label_space import LabelSpace, known_classes, read_label_space
from foldvote.data.packed_images import ConcatenatedImages, PackedImages, open_packed_images
from foldvote.errors import UserError, raise_all
from foldvote.evaluation.probabilities import weighted_mean
from foldvote.inference.prediction_files import read_member
from foldvote.io.files import read_json
from foldvote.io.ids import positions_in
from foldvote.io.parquet import read_table
from foldvote.splits.folds import SplitFiles, fold_rows, read_folds


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
        UserError: if a file is of another fold, split or task, or the files hold different images.
    """
    members = [read_member(path, "test", classes, split_sha256) for path in sorted(paths)]
    ids = pa.array(sorted(members[0].ids.to_pylist()), pa.string())
    raise_all(
        f"{member.path}: is of fold {member.fold}, and fold {fold} may learn from its own alone; run `snakemake` again"
        for member in members
        if member.fold != fold
    )
    order = [positions_in(ids, member.ids) for member in members]
    if any(len(member.ids) != len(ids) or (own < 0).any() for member, own in zip(members, order, strict=True)):
        raise UserError(f"{members[0].path}: holds other test images than the other models; run `snakemake` again")
    mean = weighted_mean(np.stack([member.mean[own] for member, own in zip(members, order, strict=True)]))
    sure = mean.max(axis=1) >= confidence
    return PseudoLabels(
        ids.filter(pa.array(sure)).to_pylist(),
        mean[sure].astype(np.float32),
        members[0].record["data_sha256"],
        [member.record["weights_sha256"] for member in members],
    )


def training_targets(
    scheme: LabelSpace,
    labels: np.ndarray,
    years: np.ndarray | None,
    treatment: Treatment,
    numeric: NumericFactor | None,
) -> np.ndarray:
    """The targets of a training set.

    Args:
        scheme: the classes; with a treatment, `numeric` is among their factors and has three levels.
        labels: class codes, int64 (N,).
        years: the numbers behind that factor, ages in years, float (N,) with NaN where one is not known; None: none is
            known. Those keep their label.
        treatment: moved borders and the years around a border in which both bands share the target.
        numeric: the factor with a number behind it, where there is one; its borders are those of a treatment that
            moves none.

    Returns:
        `labels` where nothing is treated, else probabilities, float32 (N, classes), whose rows sum to 1: the age band
        follows the years, every other factor the label. From `soft_years` below a border to as many above it the
        older band's share grows in a straight line, and is 0.5 at the border.

    Raises:
        UserError: if there are no bands to treat, or the borders do not rise.
    """
    if not treatment.active:
        return labels
    name, (low, high) = _borders(scheme, treatment, numeric)
    count = len(labels)
    targets = np.zeros((count, len(scheme.classes)), np.float32)
    known = np.zeros(count, bool) if years is None else np.isfinite(years)
    targets[np.flatnonzero(~known), labels[~known]] = 1
    if years is None:
        return targets
    older = [_share_above(years[known].astype(np.float64), border, treatment.soft_years) for border in (low, high)]
    shares = np.stack([1 - older[0], older[0] - older[1], older[1]], axis=1)  # the ramps never cross, as low < high
    rows = np.flatnonzero(known)
    for band, share in enumerate(shares.T):
        targets[rows, _with_band(scheme, name, labels[known], band)] = share
    return targets


def class_counts(targets: np.ndarray, classes: int) -> np.ndarray:
    """Images a class.

    Args:
        targets: class codes, int (N,), or probabilities, float (N, classes).
        classes: number of classes.

    Returns:
        int64 (classes,) for codes; float64 (classes,) for probabilities: sums of columns, to six decimals, so that
        the rounding of float32 does not show.
    """
    if targets.ndim == 1:
        return np.bincount(targets, minlength=classes).astype(np.int64)
    return targets.sum(axis=0, dtype=np.float64).round(6)


def _borders(scheme: LabelSpace, treatment: Treatment, numeric: NumericFactor | None) -> tuple[str, tuple[float, ...]]:
    """The factor whose bands are treated, and the borders to train with."""
    if numeric is None or len(scheme.factors.get(numeric.name, ())) != 3:
        raise UserError("labels: age_borders and soft_years need the home task's factor age; drop them from this model")
    borders = treatment.age_borders or numeric.borders
    if not borders[0] < borders[1]:
        raise UserError(f"labels.age_borders: {list(borders)} do not rise; put the lower border first")
    return numeric.name, borders


def _share_above(years: np.ndarray, border: float, soft: float) -> np.ndarray:
    """Share of each age that counts as above the border: a step, or a ramp of 2 * soft years; float64 (N,)."""
    if soft == 0:
        return (years >= border).astype(np.float64)
    with np.errstate(over="ignore"):  # a ramp of next to no years is a step
        return np.clip(0.5 + (years - border) / (2 * soft), 0, 1)


def _with_band(scheme: LabelSpace, factor: str, labels: np.ndarray, band: int) -> np.ndarray:
    """The class of each label with its level of a factor exchanged."""
    names = list(scheme.factors)
    step = int(np.prod([len(scheme.factors[name]) for name in names[names.index(factor) + 1 :]], dtype=np.int64))
    return labels + (band - scheme.level_codes(factor)[labels]) * step


@dataclass(frozen=True)
class TrainingSet:
    """What a member learns from, and what it is scored on.

    Attributes:
        scheme: the classes that it knows: all, or those of its factors.
        pixels: packed training images.
        source: where the images to learn from lie: `pixels`, or these and the packed test images.
        training: a row an image to learn from: image_id, label (code of `scheme`), stratum (empty for a test image)
            and `row`, its row of `source`.
        targets: what to learn of them: int64 codes (images,) or float32 shares (images, classes).
        validation: rows of folds.FOLDS with labels of `scheme`.
        origin: digests of what all of this was made from.
    """

    scheme: LabelSpace
    pixels: PackedImages
    source: PackedImages | ConcatenatedImages
    training: pd.DataFrame
    targets: np.ndarray
    validation: pd.DataFrame
    origin: dict[str, Any]


def build_training_set(
    recipe: Recipe,
    fold: int,
    pixels_path: Path,
    split: SplitFiles,
    manifest: Path | None = None,
    numeric: NumericFactor | None = None,
    pseudo: PseudoInputs | None = None,
) -> TrainingSet:
    """Bring together what the member of a fold learns from.

    Args:
        recipe: of its model.
        fold: its fold.
        pixels_path: packed training images.
        split: classes and folds.
        manifest: of the training images; only asked for by a recipe that treats labels by age.
        numeric: the factor with a number behind it, where there is one.
        pseudo: where test images to learn from are; only read for a recipe with `pseudo`, None learns from none.

    Raises:
        UserError: if the inputs do not belong together.
    """
    whole = read_label_space(split.classes)
    scheme, code_of = known_classes(recipe, whole)
    folds, digest = read_folds(split.folds, split.certificate)
    training, validation = (
        rows.assign(label=code_of[rows["label"].to_numpy(np.int64)]) for rows in fold_rows(folds, fold)
    )
    pixels = open_packed_images(pixels_path, recipe, read_json(split.certificate)["data_sha256"])
    training = training[["image_id", "label", "stratum"]].assign(row=pixels.rows(training["image_id"].tolist()))
    targets = training_targets(
        scheme,
        training["label"].to_numpy(np.int64),
        _numbers(manifest, training, numeric) if recipe.labels.active and numeric else None,
        recipe.labels,
        numeric,
    )
    origin = {"split_sha256": digest, "data_sha256": pixels.record["data_sha256"], "classes": list(whole.classes)}
    if recipe.pseudo is None or pseudo is None:
        return TrainingSet(scheme, pixels, pixels, training, targets, validation, origin)
    found = pseudo_labels(pseudo.predictions, fold, recipe.pseudo.confidence, whole.classes, digest)
    tests = open_packed_images(pseudo.pixels, recipe, found.data_sha256)
    shares = found.shares @ np.eye(len(scheme.classes), dtype=np.float32)[code_of]
    training = pd.concat([training, _as_rows(found, shares, tests, len(pixels))], ignore_index=True)
    targets = np.concatenate([_as_shares(targets, len(scheme.classes)), shares])
    origin["pseudo"] = {"images": len(shares), "test_sha256": found.data_sha256, "weights_sha256": found.sources}
    return TrainingSet(scheme, pixels, ConcatenatedImages(pixels, tests), training, targets, validation, origin)


def _as_rows(found: PseudoLabels, shares: np.ndarray, tests: PackedImages, before: int) -> pd.DataFrame:
    """Test images as rows to learn from; `before` images stand before them in the source."""
    rows = {"image_id": found.image_ids, "label": shares.argmax(axis=1), "stratum": ""}
    return pd.DataFrame(rows).assign(row=before + tests.rows(found.image_ids))


def _as_shares(targets: np.ndarray, classes: int) -> np.ndarray:
    """Codes or shares as float32 shares (images, classes)."""
    return np.eye(classes, dtype=np.float32)[targets] if targets.ndim == 1 else targets


def _numbers(manifest: Path | None, training: pd.DataFrame, numeric: NumericFactor) -> np.ndarray:
    """The number of each training image, such as the age in years; NaN where it is not known."""
    if manifest is None:
        raise UserError("labels: are treated by age, and no manifest was given to take it from")
    numbers = read_table(manifest).set_index("image_id")[numeric.column]
    return numbers.reindex(training["image_id"]).to_numpy(np.float64)
