"""What one member learns from and is scored on: images, targets and the classes it knows.

Everything that a recipe changes about them is here: a model of some factors, labels treated for training, test images
with pseudo-labels (Lee, ICML workshops 2013). A member is scored on the true labels of its validation groups. A member
of fold k takes pseudo-labels only from first-round members of fold k: none of those has seen the groups of fold k, so
its out-of-fold predictions stay unbiased.
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
        images: packed test images of the recipe's size and region.
        predictions: test predictions of this fold's member of each first-round model.
    """

    images: Path
    predictions: tuple[Path, ...]


@dataclass(frozen=True)
class MemberInputs:
    """The files that a member is trained from.

    Attributes:
        images: packed training images of the recipe's size and region.
        split: classes and folds.
        pretrained: local weights file, or None.
        manifest: of the training images; only needed by a recipe that treats labels by age.
        numeric: the factor with a number behind it, where there is one.
        pseudo: test images and their first-round predictions; only for a recipe that learns from them.
    """

    images: Path
    split: SplitFiles
    pretrained: Path | None = None
    manifest: Path | None = None
    numeric: NumericFactor | None = None
    pseudo: PseudoInputs | None = None

    @property
    def bands(self) -> dict[str, tuple[int, ...]]:
        """Borders of the bands by factor, for a head that regresses the number behind them."""
        return self.numeric.bands if self.numeric else {}


@dataclass(frozen=True)
class PseudoLabels:
    """Test images to learn from.

    Attributes:
        image_ids: their ids, sorted.
        probabilities: float32 (images, classes), rows sum to 1: the mean over the first-round models.
        data_sha256: digest of the test manifest.
        sources: SHA-256 of the weights that predicted them.
    """

    image_ids: list[str]
    probabilities: np.ndarray
    data_sha256: str
    sources: list[str]


def pseudo_labels(
    paths: Sequence[Path], fold: int, confidence: float, classes: Sequence[str], split_sha256: str
) -> PseudoLabels:
    """The test images whose class the first-round models are sure of.

    Args:
        paths: `<results>/test/model=<m>/fold=<fold>/predictions.parquet` of each first-round model.
        fold: fold of the member that learns from them.
        confidence: smallest probability of the likeliest class, in the mean over models and views.
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
    label_space: LabelSpace,
    labels: np.ndarray,
    years: np.ndarray | None,
    treatment: Treatment,
    numeric: NumericFactor | None,
) -> np.ndarray:
    """The targets of a training set.

    Args:
        label_space: the classes; with a treatment, `numeric` is among their factors and has three levels.
        labels: class codes, int64 (N,).
        years: the numbers behind that factor, such as ages in years, float (N,) with NaN where unknown; None: all
            unknown. An image whose number is unknown keeps its label.
        treatment: moved age borders, and the years around a border in which both bands share the target.
        numeric: the factor with a number behind it, where there is one; its borders are used where none are moved.

    Returns:
        `labels` where nothing is treated, else probabilities, float32 (N, classes), whose rows sum to 1: the age band
        follows the years, every other factor the label. The older band's share grows linearly from `soft_years` below
        a border to `soft_years` above it, and is 0.5 at the border.

    Raises:
        UserError: if there are no bands to treat, or the borders do not rise.
    """
    if not treatment.active:
        return labels
    name, (low, high) = _borders(label_space, treatment, numeric)
    count = len(labels)
    targets = np.zeros((count, len(label_space.classes)), np.float32)
    known = np.zeros(count, bool) if years is None else np.isfinite(years)
    targets[np.flatnonzero(~known), labels[~known]] = 1
    if years is None:
        return targets
    older = [_share_above(years[known].astype(np.float64), border, treatment.soft_years) for border in (low, high)]
    shares = np.stack([1 - older[0], older[0] - older[1], older[1]], axis=1)  # the ramps never cross, as low < high
    rows = np.flatnonzero(known)
    for band, share in enumerate(shares.T):
        targets[rows, _with_band(label_space, name, labels[known], band)] = share
    return targets


def class_counts(targets: np.ndarray, classes: int) -> np.ndarray:
    """Number of training images per class.

    Args:
        targets: class codes, int (N,), or probabilities, float (N, classes).
        classes: number of classes.

    Returns:
        int64 (classes,) for codes; float64 (classes,) for probabilities: the sums of the columns, rounded to six
        decimals to hide the rounding of float32.
    """
    if targets.ndim == 1:
        return np.bincount(targets, minlength=classes).astype(np.int64)
    return targets.sum(axis=0, dtype=np.float64).round(6)


def _borders(
    label_space: LabelSpace, treatment: Treatment, numeric: NumericFactor | None
) -> tuple[str, tuple[float, ...]]:
    """The factor whose bands are treated, and the borders to train with: the treatment's, else the data's own."""
    if numeric is None or len(label_space.factors.get(numeric.name, ())) != 3:
        raise UserError("labels: age_borders and soft_years need the home task's factor age; drop them from this model")
    borders = treatment.age_borders or numeric.borders
    if not borders[0] < borders[1]:
        raise UserError(f"labels.age_borders: {list(borders)} do not rise; put the lower border first")
    return numeric.name, borders


def _share_above(years: np.ndarray, border: float, soft: float) -> np.ndarray:
    """How much of each age counts as above the border, float64 (N,): a step, or a ramp of 2 * soft years."""
    if soft == 0:
        return (years >= border).astype(np.float64)
    with np.errstate(over="ignore"):  # a ramp of almost no years is a step
        return np.clip(0.5 + (years - border) / (2 * soft), 0, 1)


def _with_band(label_space: LabelSpace, factor: str, labels: np.ndarray, band: int) -> np.ndarray:
    """The class of each label with its level of a factor replaced."""
    names = list(label_space.factors)
    step = int(np.prod([len(label_space.factors[name]) for name in names[names.index(factor) + 1 :]], dtype=np.int64))
    return labels + (band - label_space.level_codes(factor)[labels]) * step


@dataclass(frozen=True)
class TrainingSet:
    """What a member learns from, and what it is scored on.

    Attributes:
        label_space: the classes that it knows: all, or those of its factors.
        images: packed training images.
        source: where the images to learn from are: `images`, or these and the packed test images.
        training: one row per image to learn from: image_id, label (code of `label_space`), stratum (empty for a test
            image) and `row`, its row in `source`.
        targets: what to learn of them: int64 codes (images,) or float32 probabilities (images, classes).
        validation: rows of folds.FOLDS with labels of `label_space`.
        origin: digests of what all of this was made from.
    """

    label_space: LabelSpace
    images: PackedImages
    source: PackedImages | ConcatenatedImages
    training: pd.DataFrame
    targets: np.ndarray
    validation: pd.DataFrame
    origin: dict[str, Any]


def build_training_set(recipe: Recipe, fold: int, inputs: MemberInputs) -> TrainingSet:
    """Bring together what the member of a fold learns from.

    Args:
        recipe: of its model.
        fold: its fold.
        inputs: the files; pseudo-labels are only read for a recipe with `pseudo`.

    Raises:
        UserError: if the inputs do not belong together.
    """
    whole = read_label_space(inputs.split.classes)
    label_space, code_of = known_classes(recipe, whole)
    folds, digest = read_folds(inputs.split.folds, inputs.split.certificate)
    training, validation = (
        rows.assign(label=code_of[rows["label"].to_numpy(np.int64)]) for rows in fold_rows(folds, fold)
    )
    certified = read_json(inputs.split.certificate)["data_sha256"]
    images = open_packed_images(inputs.images, recipe.size, recipe.roi, certified)
    training = training[["image_id", "label", "stratum"]].assign(row=images.rows(training["image_id"].tolist()))
    targets = training_targets(
        label_space,
        training["label"].to_numpy(np.int64),
        _numbers(inputs.manifest, training, inputs.numeric) if recipe.labels.active and inputs.numeric else None,
        recipe.labels,
        inputs.numeric,
    )
    origin = {"split_sha256": digest, "data_sha256": images.record["data_sha256"], "classes": list(whole.classes)}
    if recipe.pseudo is None or inputs.pseudo is None:
        return TrainingSet(label_space, images, images, training, targets, validation, origin)
    found = pseudo_labels(inputs.pseudo.predictions, fold, recipe.pseudo.confidence, whole.classes, digest)
    tests = open_packed_images(inputs.pseudo.images, recipe.size, recipe.roi, found.data_sha256)
    probabilities = found.probabilities @ np.eye(len(label_space.classes), dtype=np.float32)[code_of]
    training = pd.concat([training, _as_rows(found, probabilities, tests, len(images))], ignore_index=True)
    targets = np.concatenate([_as_probabilities(targets, len(label_space.classes)), probabilities])
    origin["pseudo"] = {
        "images": len(probabilities),
        "test_sha256": found.data_sha256,
        "weights_sha256": found.sources,
    }
    source = ConcatenatedImages(images, tests)
    return TrainingSet(label_space, images, source, training, targets, validation, origin)


def _as_rows(found: PseudoLabels, probabilities: np.ndarray, tests: PackedImages, before: int) -> pd.DataFrame:
    """Test images as rows to learn from, where `before` images stand before them in the source."""
    rows = {"image_id": found.image_ids, "label": probabilities.argmax(axis=1), "stratum": ""}
    return pd.DataFrame(rows).assign(row=before + tests.rows(found.image_ids))


def _as_probabilities(targets: np.ndarray, classes: int) -> np.ndarray:
    """Class codes or probabilities as float32 probabilities (images, classes)."""
    return np.eye(classes, dtype=np.float32)[targets] if targets.ndim == 1 else targets


def _numbers(manifest: Path | None, training: pd.DataFrame, numeric: NumericFactor) -> np.ndarray:
    """The number behind the factor for each training image, such as the age in years; NaN where unknown."""
    if manifest is None:
        raise UserError("labels: are treated by age, and no manifest was given to take it from")
    numbers = read_table(manifest).set_index("image_id")[numeric.column]
    return numbers.reindex(training["image_id"]).to_numpy(np.float64)
