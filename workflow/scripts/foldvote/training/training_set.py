"""The training set of one member: its label space, images and targets, and the validation images it is scored on.

Everything that a recipe changes about these is here: models of single factors, soft labels and moved borders, test
images with pseudo-labels (Lee, ICML workshops 2013). A member is scored on the true labels of its validation groups. A
member of fold k takes pseudo-labels only from first-round members of fold k. None of these has seen the groups of fold
k, so its out-of-fold predictions stay unbiased.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from foldvote.config.layout_facts import NumericFactor
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
    """The files that pseudo-labels are made from.

    Attributes:
        images: packed test images of the recipe's size and region.
        predictions: for each first-round model the test predictions of its member of this fold.
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
        manifest: manifest of the training images; only needed by a recipe that treats labels by age.
        numeric: the factor that bins a number, such as age; None if there is none.
        pseudo: test images and their first-round predictions; only for a recipe with `pseudo`.
        metric: the file of the user's own metric; only for a recipe that chooses an epoch by it, or a search by it.
        pretrained_sha256: the SHA-256 that the weights file must have; None or empty: any.
    """

    images: Path
    split: SplitFiles
    pretrained: Path | None = None
    manifest: Path | None = None
    numeric: NumericFactor | None = None
    pseudo: PseudoInputs | None = None
    metric: Path | None = None
    pretrained_sha256: str | None = None

    @property
    def bands(self) -> dict[str, tuple[int, ...]]:
        """Borders of the bands of each factor that bins a number, for a regression head."""
        return self.numeric.bands if self.numeric else {}


@dataclass(frozen=True)
class PseudoLabels:
    """Test images with predicted labels.

    Attributes:
        image_ids: ids of the images, sorted.
        probabilities: mean over the first-round models: float32 (images, classes), rows sum to 1.
        data_sha256: digest of the test manifest.
        sources: SHA-256 of the weights of each first-round member.
    """

    image_ids: list[str]
    probabilities: np.ndarray
    data_sha256: str
    sources: list[str]


def pseudo_labels(
    paths: Sequence[Path], fold: int, confidence: float, classes: Sequence[str], split_sha256: str
) -> PseudoLabels:
    """Select the test images that the first-round models predict with high confidence.

    Args:
        paths: `<results>/test/model=<m>/fold=<fold>/predictions.parquet` of each first-round model.
        fold: fold of the member that is trained on them.
        confidence: smallest probability of the most likely class, in the mean over models and views; of each model as
            a share of what its label smoothing leaves: smoothed by 0.1, it is never surer than 0.9.
        classes: class names in the order of their codes.
        split_sha256: digest of the certified folds.

    Raises:
        UserError: if a file belongs to another fold, split or task, or the files hold different images.
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
    means = np.stack([member.mean[own] for member, own in zip(members, order, strict=True)])
    mean = weighted_mean(means)
    smoothing = [float(member.record.get("label_smoothing", 0.0)) for member in members]
    sure = weighted_mean(np.stack(list(map(without_smoothing, means, smoothing)))).max(axis=1) >= confidence
    return PseudoLabels(
        ids.filter(pa.array(sure)).to_pylist(),
        mean[sure].astype(np.float32),
        members[0].record["data_sha256"],
        [member.record["weights_sha256"] for member in members],
    )


def without_smoothing(probabilities: np.ndarray, smoothing: float) -> np.ndarray:
    """The probabilities of which smoothed targets would make those given (Szegedy et al., CVPR 2016).

    Args:
        probabilities: float (images, classes), rows sum to 1.
        smoothing: the share of the targets that was spread over all classes, below 1.

    Returns:
        An array of the same shape, rows sum to 1; unlikely classes may be slightly below 0.
    """
    if smoothing == 0:
        return probabilities
    return (probabilities - smoothing / probabilities.shape[1]) / (1 - smoothing)


def training_targets(
    label_space: LabelSpace,
    labels: np.ndarray,
    years: np.ndarray | None,
    treatment: Treatment,
    numeric: NumericFactor | None,
) -> np.ndarray:
    """Compute the training targets from the labels.

    Args:
        label_space: the classes; with a treatment, `numeric` is among their factors and has three levels.
        labels: class codes, int64 (N,).
        years: the number of each image, such as the age in years, float (N,) with NaN if unknown; None if all are
            unknown. An image with unknown number keeps its label.
        treatment: moved age borders, and the number of years around a border in which both bands share the target.
        numeric: the factor that bins the number, or None; its borders are used if the treatment moves none.

    Returns:
        `labels` without a treatment. Otherwise probabilities, float32 (N, classes), rows sum to 1: the age band comes
        from `years`, every other factor from the label. The share of the older band grows linearly from `soft_years`
        below a border to `soft_years` above it, and is 0.5 at the border.

    Raises:
        UserError: if the classes have no three age bands, or the borders do not increase.
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
        int64 (classes,) for codes. For probabilities float64 (classes,), the column sums, rounded to six decimals to
        remove float32 rounding errors.
    """
    if targets.ndim == 1:
        return np.bincount(targets, minlength=classes).astype(np.int64)
    return targets.sum(axis=0, dtype=np.float64).round(6)


def _borders(
    label_space: LabelSpace, treatment: Treatment, numeric: NumericFactor | None
) -> tuple[str, tuple[float, ...]]:
    """The factor whose bands are treated, and the borders to train with: those of the treatment, else of the data."""
    if numeric is None or len(label_space.factors.get(numeric.name, ())) != 3:
        raise UserError("labels: age_borders and soft_years need the home task's factor age; drop them from this model")
    borders = treatment.age_borders or numeric.borders
    if not borders[0] < borders[1]:
        raise UserError(f"labels.age_borders: {list(borders)} do not rise; put the lower border first")
    return numeric.name, borders


def _share_above(years: np.ndarray, border: float, soft: float) -> np.ndarray:
    """Share of each age that counts as above the border, float64 (N,): a step, or a linear ramp of 2 * soft years."""
    if soft == 0:
        return (years >= border).astype(np.float64)
    with np.errstate(over="ignore"):  # a ramp of almost no years is a step
        return np.clip(0.5 + (years - border) / (2 * soft), 0, 1)


def _with_band(label_space: LabelSpace, factor: str, labels: np.ndarray, band: int) -> np.ndarray:
    """The class codes of `labels` with the level of one factor replaced by `band`: int64 (N,)."""
    names = list(label_space.factors)
    step = int(np.prod([len(label_space.factors[name]) for name in names[names.index(factor) + 1 :]], dtype=np.int64))
    return labels + (band - label_space.level_codes(factor)[labels]) * step


@dataclass(frozen=True)
class TrainingSet:
    """The images and targets that a member is trained on, and the images it is scored on.

    Attributes:
        label_space: the classes of the model: all classes, or those of its factors.
        images: packed training images.
        source: the images that `training` refers to: `images`, or these followed by the packed test images.
        training: one row per training image: image_id, label (code in `label_space`), stratum (empty for a test image)
            and row (its position in `source`).
        targets: targets of these images: int64 codes (images,) or float32 probabilities (images, classes).
        validation: rows of folds.FOLDS, with labels in `label_space`.
        origin: digests of the inputs.
    """

    label_space: LabelSpace
    images: PackedImages
    source: PackedImages | ConcatenatedImages
    training: pd.DataFrame
    targets: np.ndarray
    validation: pd.DataFrame
    origin: dict[str, Any]


def build_training_set(recipe: Recipe, fold: int, inputs: MemberInputs) -> TrainingSet:
    """Build the training set of a member.

    Args:
        recipe: recipe of the model.
        fold: fold of the member.
        inputs: the input files; pseudo-labels are only read for a recipe with `pseudo`.

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
    """Rows of `TrainingSet.training` for the test images, which follow `before` training images in the source."""
    rows = {"image_id": found.image_ids, "label": probabilities.argmax(axis=1), "stratum": ""}
    return pd.DataFrame(rows).assign(row=before + tests.rows(found.image_ids))


def _as_probabilities(targets: np.ndarray, classes: int) -> np.ndarray:
    """Class codes or probabilities as float32 probabilities (images, classes)."""
    return np.eye(classes, dtype=np.float32)[targets] if targets.ndim == 1 else targets


def _numbers(manifest: Path | None, training: pd.DataFrame, numeric: NumericFactor) -> np.ndarray:
    """The number of each training image, such as the age in years: float64 (images,), NaN if unknown."""
    if manifest is None:
        raise UserError("labels: are treated by age, and no manifest was given to take it from")
    numbers = read_table(manifest).set_index("image_id")[numeric.column]
    return numbers.reindex(training["image_id"]).to_numpy(np.float64)
