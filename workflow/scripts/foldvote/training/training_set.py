"""The training set of one member: its label space, images and targets, and the validation images it is scored on.

Everything that a recipe changes about these meets here: models of single factors, soft labels and moved borders
(foldvote.training.targets), and what other models teach (foldvote.training.first_round). A member is scored on the true
labels of its validation groups.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from foldvote.config.layout_facts import NumericFactor
from foldvote.config.metadata import Metadata
from foldvote.config.named_weights import weights_path
from foldvote.config.recipe import Recipe
from foldvote.data.label_space import LabelSpace, known_classes, read_label_space
from foldvote.data.manifest_table import WEIGHT
from foldvote.data.metadata import MetadataRows, encode, fit_encoding, read_metadata
from foldvote.data.packed_images import ConcatenatedImages, PackedImages, open_packed_images
from foldvote.errors import UserError
from foldvote.io.files import read_json, sha256_bytes, sha256_lines
from foldvote.io.parquet import read_table
from foldvote.splits.folds import SplitFiles, fold_rows, read_folds
from foldvote.training.first_round import FirstRound, PseudoInputs, read_first_round, tempered
from foldvote.training.targets import training_targets


@dataclass(frozen=True)
class MemberInputs:
    """The files that a member is trained from.

    Attributes:
        images: training images, packed as the recipe says.
        split: classes and folds.
        pretrained: local weights file, or None.
        manifest: manifest of the training images; only needed by a recipe that treats labels by age.
        numeric: the factor that bins a number, such as age; None if there is none.
        pseudo: test images and their first-round predictions; only for a recipe that learns from test images.
        metric: the file of the user's own metric; only for a recipe that chooses an epoch by it, or a search by it.
        teachers: for each teacher what its member of this fold predicts of the images that both are trained on; only
            for a recipe with `distill`.
        pretrained_sha256: the SHA-256 that the weights file must have; None or empty: any.
        metadata: for a recipe with `metadata` the manifest of the training images, and that of the test images if it
            learns from them.
    """

    images: Path
    split: SplitFiles
    pretrained: Path | None = None
    manifest: Path | None = None
    numeric: NumericFactor | None = None
    pseudo: PseudoInputs | None = None
    metric: Path | None = None
    teachers: tuple[Path, ...] = ()
    pretrained_sha256: str | None = None
    metadata: tuple[Path, ...] = ()

    @property
    def bands(self) -> dict[str, tuple[int, ...]]:
        """Borders of the bands of each factor that bins a number, for a regression head."""
        return self.numeric.bands if self.numeric else {}


def inputs_of_job(
    given: Mapping[str, Any], recipe: Recipe, numeric: NumericFactor | None, pretrained_sha256: str | None
) -> MemberInputs:
    """The files that a member is trained from, from the named input files of a job.

    Args:
        given: paths by name: pixels, classes, folds, certificate, and as far as the recipe needs them pretrained,
            manifest, pseudo_pixels, pseudo, metric, teachers and metadata.
        recipe: of the member; weights by name are no input of a job.
        numeric: the factor that bins a number, such as age; None if there is none.
        pretrained_sha256: the SHA-256 that the weights file must have; None or empty: any.

    Raises:
        UserError: if weights that the recipe names are not there.
    """
    file = given.get("pretrained") or (weights_path(recipe.named_weights) if recipe.named_weights else None)
    pseudo = [Path(path) for path in given.get("pseudo") or ()]
    return MemberInputs(
        Path(given["pixels"]),
        SplitFiles(Path(given["classes"]), Path(given["folds"]), Path(given["certificate"])),
        Path(file) if file else None,
        Path(given["manifest"]) if given.get("manifest") else None,
        numeric,
        PseudoInputs(Path(given["pseudo_pixels"]), tuple(pseudo)) if pseudo else None,
        Path(given["metric"]) if given.get("metric") else None,
        tuple(Path(path) for path in given.get("teachers") or ()),
        pretrained_sha256,
        tuple(Path(path) for path in given.get("metadata") or ()),
    )


@dataclass(frozen=True)
class TrainingSet:
    """The images and targets that a member is trained on, and the images it is scored on.

    Attributes:
        label_space: the classes of the model: all classes, or those of its factors.
        images: packed training images.
        source: the images that `training` refers to: `images`, or these followed by the packed test images.
        training: one row per training image: image_id, label (code in `label_space`), stratum (empty for a test image),
            row (its position in `source`) and group (a number; a test image is a group by itself).
        targets: targets of these images: int64 codes (images,) or float32 probabilities (images, classes), which they
            are if images have weights or metadata.
        validation: rows of folds.FOLDS, with labels in `label_space`.
        origin: digests of the inputs.
        taught: with `distill` what the teachers predict of these images, softened by its temperature: float32 (images,
            classes), rows sum to 1; otherwise None.
        weights: of the training images in the loss, float32 (images,), 1 on average; None: they have none.
        metadata: of all images of `source`, for a recipe with `metadata`; otherwise None.
    """

    label_space: LabelSpace
    images: PackedImages
    source: PackedImages | ConcatenatedImages
    training: pd.DataFrame
    targets: np.ndarray
    validation: pd.DataFrame
    origin: dict[str, Any]
    weights: np.ndarray | None = None
    taught: np.ndarray | None = None
    metadata: MetadataRows | None = None

    def batch_targets(self, grouped: bool) -> np.ndarray:
        """What a batch is given of its images, one row each.

        Args:
            grouped: whether it is told their groups.

        Returns:
            The targets. With `distill` probabilities, followed by those of the teachers: float32 (images, 2 x classes).
            With weights both are multiplied by them. Groups are a last column, whose numbers float32 holds exactly.
        """
        if self.taught is None and not grouped and self.weights is None:
            return self.targets
        rows = _as_probabilities(self.targets, len(self.label_space.classes))
        if self.taught is not None:
            rows = np.concatenate([rows, self.taught], axis=1)
        if self.weights is not None:
            rows = rows * self.weights[:, None]
        groups = self.training["group"].to_numpy(np.float32)[:, None]
        return np.concatenate([rows, groups], axis=1) if grouped else rows


def without_metadata(targets: torch.Tensor, width: int) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """The targets of a batch, and in a list the metadata that came before them; no entry where there is none.

    Args:
        targets: (batch, width + columns), or any shape without metadata.
        width: number of numbers of an image's metadata; 0: there is none.
    """
    return (targets[:, width:], [targets[:, :width]]) if width else (targets, [])


def build_training_set(recipe: Recipe, fold: int, inputs: MemberInputs) -> TrainingSet:
    """Build the training set of a member.

    Args:
        recipe: recipe of the model.
        fold: fold of the member.
        inputs: the input files; predictions of other models are only read for a recipe that learns from them.

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
    images = open_packed_images(inputs.images, recipe.packed, certified)
    weights = training[WEIGHT].to_numpy(np.float64) if WEIGHT in training else None
    groups, _ = pd.factorize(training["group"], sort=True)
    rows = images.rows(training["image_id"].tolist())
    training = training[["image_id", "label", "stratum"]].assign(row=rows, group=groups)
    targets = training_targets(
        label_space,
        training["label"].to_numpy(np.int64),
        _numbers(inputs.manifest, training, inputs.numeric) if recipe.labels.active and inputs.numeric else None,
        recipe.labels,
        inputs.numeric,
    )
    if weights is not None or recipe.metadata is not None:
        targets = _as_probabilities(targets, len(label_space.classes))
    origin = {"split_sha256": digest, "data_sha256": images.record["data_sha256"], "classes": list(whole.classes)}
    chosen = TrainingSet(label_space, images, images, training, targets, validation, origin)
    if recipe.metadata is not None:
        chosen = _with_metadata(chosen, inputs, recipe.metadata)
    own_classes = np.eye(len(label_space.classes), dtype=np.float32)[code_of]
    if recipe.distill is not None:
        found = read_first_round(inputs.teachers, "teach", fold, whole.classes, digest)
        found = found.of_images(training["image_id"].tolist(), fold, images.record["data_sha256"])
        chosen = _with_teachers(chosen, found, found.probabilities @ own_classes, recipe.distill.temperature)
    if recipe.first_round and inputs.pseudo is not None:
        found = read_first_round(inputs.pseudo.predictions, "test", fold, whole.classes, digest)
        if recipe.pseudo is not None:
            found = found.surer_than(recipe.pseudo.confidence)
        tests = open_packed_images(inputs.pseudo.images, recipe.packed, found.data_sha256)
        chosen = _with_test_images(chosen, found, found.probabilities @ own_classes, tests)
        if chosen.metadata is not None and recipe.metadata is not None:
            chosen = _with_metadata_of_tests(chosen, chosen.metadata, inputs.metadata[1], tests, recipe.metadata)
        if recipe.distill is not None and chosen.taught is not None:
            taught = tempered(found.probabilities @ own_classes, recipe.distill.temperature)
            chosen = replace(chosen, taught=np.concatenate([chosen.taught, taught]))
    if weights is not None:
        chosen = replace(chosen, weights=_one_on_average(weights, len(chosen.training)))
    by_stratum = recipe.sampler is not None and recipe.sampler.by == "stratum"
    return replace(chosen, origin=chosen.origin | _beside_the_split(chosen, by_stratum))


def _beside_the_split(chosen: TrainingSet, by_stratum: bool) -> dict[str, str]:
    """Digests of what the digest of the split does not cover: targets that are no classes, and strata that are used."""
    targets = {"targets_sha256": sha256_bytes(chosen.targets.tobytes())} if chosen.targets.ndim == 2 else {}
    return targets | ({"strata_sha256": sha256_lines(iter(chosen.training["stratum"]))} if by_stratum else {})


def _with_teachers(
    chosen: TrainingSet, found: FirstRound, probabilities: np.ndarray, temperature: float
) -> TrainingSet:
    """A training set with what the teachers predict of its images, in the classes of the model."""
    taught = tempered(probabilities, temperature)
    about = {"weights_sha256": found.sources, "targets_sha256": sha256_bytes(taught.tobytes())}
    return replace(chosen, taught=taught, origin=chosen.origin | {"distill": about})


def _with_test_images(
    chosen: TrainingSet, found: FirstRound, probabilities: np.ndarray, tests: PackedImages
) -> TrainingSet:
    """A training set with test images, whose targets are the probabilities that were predicted."""
    rows = {"image_id": found.image_ids, "label": probabilities.argmax(axis=1), "stratum": ""}
    after = chosen.training["group"].max() + 1
    added = pd.DataFrame(rows).assign(
        row=len(chosen.images) + tests.rows(found.image_ids), group=after + np.arange(len(found.image_ids))
    )
    own = _as_probabilities(chosen.targets, len(chosen.label_space.classes))
    about = {"images": len(added), "test_sha256": found.data_sha256, "weights_sha256": found.sources}
    return replace(
        chosen,
        source=ConcatenatedImages(chosen.images, tests),
        training=pd.concat([chosen.training, added], ignore_index=True),
        targets=np.concatenate([own, probabilities]),
        origin=chosen.origin | {"pseudo": about},
    )


def _with_metadata(chosen: TrainingSet, inputs: MemberInputs, wanted: Metadata) -> TrainingSet:
    """A training set with the metadata of its images, encoded as fitted on its training images alone."""
    table = read_metadata(inputs.metadata[0], list(chosen.images.row_of), wanted.columns)
    encoding = fit_encoding(table.iloc[chosen.training["row"].to_numpy()])
    rows = encode(table, encoding)
    about = {"columns": encoding.as_json(), "sha256": sha256_bytes(rows.tobytes())}
    metadata = MetadataRows(encoding, rows, wanted.dropped)
    return replace(chosen, metadata=metadata, origin=chosen.origin | {"metadata": about})


def _with_metadata_of_tests(
    chosen: TrainingSet, metadata: MetadataRows, manifest: Path, tests: PackedImages, wanted: Metadata
) -> TrainingSet:
    """A training set with the metadata of the test images as well, which follow the others in its source."""
    tested = encode(read_metadata(manifest, list(tests.row_of), wanted.columns), metadata.encoding)
    rows = np.concatenate([metadata.rows, tested])
    about = chosen.origin["metadata"] | {"sha256": sha256_bytes(rows.tobytes())}
    return replace(chosen, metadata=replace(metadata, rows=rows), origin=chosen.origin | {"metadata": about})


def _as_probabilities(targets: np.ndarray, classes: int) -> np.ndarray:
    """Class codes or probabilities as float32 probabilities (images, classes)."""
    return np.eye(classes, dtype=np.float32)[targets] if targets.ndim == 1 else targets


def _one_on_average(weights: np.ndarray, images: int) -> np.ndarray:
    """The weights of a member's training images, 1 on average: float32 (images,).

    Args:
        weights: as the data gives them, of the first of its images; the others, pseudo-labelled, weigh 1.
        images: number of its training images.
    """
    every = np.concatenate([weights, np.ones(images - len(weights))])
    return (every / every.mean()).astype(np.float32)


def numbers_sha256(manifest: Path, numeric: NumericFactor) -> str:
    """Digest of the numbers that labels are treated by, such as ages, which no digest of the data or split covers.

    Args:
        manifest: of the training images.
        numeric: the factor that bins the number.
    """
    rows = read_table(manifest).sort_values("image_id")
    return sha256_lines(
        f"{name}\t{number}" for name, number in zip(rows["image_id"], rows[numeric.column], strict=True)
    )


def _numbers(manifest: Path | None, training: pd.DataFrame, numeric: NumericFactor) -> np.ndarray:
    """The number of each training image, such as the age in years: float64 (images,), NaN if unknown."""
    if manifest is None:
        raise UserError("labels: are treated by age, and no manifest was given to take it from")
    numbers = read_table(manifest).set_index("image_id")[numeric.column]
    return numbers.reindex(training["image_id"]).to_numpy(np.float64)
