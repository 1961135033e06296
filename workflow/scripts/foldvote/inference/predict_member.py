"""The prediction job of one member: it writes the logits of every view, for one or several parts of the images."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from safetensors import SafetensorError
from safetensors.torch import load
from torch import nn

from foldvote.config.recipe import Recipe
from foldvote.config.tta import view_name
from foldvote.data.label_space import LabelSpace, known_classes, read_label_space
from foldvote.data.metadata import Encoding, encode, read_metadata
from foldvote.data.packed_images import PackedImages, open_packed_images
from foldvote.errors import UserError, raise_all
from foldvote.inference.feature_files import check_features, features_origin
from foldvote.inference.features import predict_from_features
from foldvote.inference.forward import predict_logits
from foldvote.inference.prediction_files import LOGIT, predictions_schema
from foldvote.inference.tta import views_of
from foldvote.io.files import read_json, sha256_bytes, write_json
from foldvote.io.parquet import write_table
from foldvote.models.factory import build_model
from foldvote.runtime.device import Device, name_nondeterminism
from foldvote.runtime.job_log import log, track
from foldvote.runtime.resources import JobResources
from foldvote.splits.folds import SplitFiles, fold_rows, read_folds
from foldvote.splits.reserve import reserve_rows

HIDDEN = "without_metadata"  # the part whose metadata is hidden


@dataclass(frozen=True)
class PartFiles:
    """A part of the images that a member predicts, and the files of this part.

    Attributes:
        part: "oof" predicts the validation images of the member's fold, "reserve" the images in no fold, "teach" those
            that the member was trained on, "test" every packed image; "without_metadata" predicts those of "oof" as if
            their metadata were missing.
        images: packed images of the test split (part "test") or of the training split (all other parts).
        predictions: the parquet table to write, one row per image and view.
        timing: the JSON file to write, with seconds, images and device.
        features: for a probe the features of the packed images, from which its head predicts; the time that these
            images took to make them counts as the member's.
        manifest: for a model that sees metadata, the manifest of the packed images, unless the part hides it.
    """

    part: str
    images: Path
    predictions: Path
    timing: Path
    features: Path | None = None
    manifest: Path | None = None


@name_nondeterminism()
def predict_member(
    weights: Path,
    sidecar: Path,
    split: SplitFiles,
    parts: Sequence[PartFiles],
    views: list[str | dict[str, Any]],
    resources: JobResources,
) -> None:
    """Predict images under every view, such as the validation images of a member, and write the logits.

    The network is loaded once for all parts; the images of a part are closed before those of the next one are opened.

    A model of only some factors predicts their levels; each class gets the logit of its levels. So classes that differ
    only in other factors have equal logits.

    Args:
        weights: the member's model.safetensors.
        sidecar: its model.json.
        split: classes and folds.
        parts: what to predict, in this order.
        views: the test-time views of the checked configuration.
        resources: the resources of this job.

    Raises:
        UserError: if the weights file was changed after training, or belongs to other classes, another split or other
            images; or if the features are of another net, or lack a view.
    """
    about, recipe, model = load_member(weights, sidecar, split)
    member = _Member(
        about,
        recipe,
        model,
        resources.device(recipe),
        resources.runtime.predict_batch,
        read_label_space(split.classes),
        read_folds(split.folds, split.certificate)[0],
    )
    for files in parts:
        _predict_part(member, files, views)


@dataclass(frozen=True)
class _Member:
    """A loaded member and what all its parts are predicted with."""

    about: dict[str, Any]
    recipe: Recipe
    model: nn.Module
    device: Device
    batch_size: int
    whole: LabelSpace
    folds: pd.DataFrame


def _predict_part(member: _Member, files: PartFiles, views: list[str | dict[str, Any]]) -> None:
    """Predict one part and write its files."""
    about, recipe, part = member.about, member.recipe, files.part
    certified = None if part == "test" else about["data_sha256"]
    images = open_packed_images(files.images, recipe.packed, certified)
    rows = _images_to_predict(images, member.folds, part, about["fold"])

    name = f"{about['model']} fold {about['fold']}"
    started = time.monotonic()
    names = [view_name(view) for view in views]
    if files.features is not None:
        expected = features_origin(recipe, about["pretrained_sha256"], images.record["data_sha256"])
        check_features(files.features, expected, names)
        logits, spent = predict_from_features(member.model, files.features, rows["image_id"].tolist(), names)
    else:
        spent, seen = 0.0, _metadata(about, recipe, None if part == HIDDEN else files.manifest, images)
        logits = predict_logits(
            member.device.place(member.model),
            images,
            images.rows(rows["image_id"].tolist()),
            views_of(recipe, views),
            member.device,
            member.batch_size,
            partial(_tracked, f"{name}: {part} predictions, batches"),
            metadata=seen,
        )
    seconds = spent + time.monotonic() - started
    record = {key: about[key] for key in ("model", "fold", "split_sha256", "classes")} | {
        "split": part,
        "data_sha256": images.record["data_sha256"],
        "weights_sha256": about["sha256"],
        "views": names,
        "factors": recipe.factors,
        "label_smoothing": recipe.label_smoothing,
    }
    whole, code_of = member.whole, known_classes(recipe, member.whole)[1]
    frame = _long_table(rows, {view: own[:, code_of] for view, own in logits.items()}, whole.classes)
    write_table(frame, files.predictions, predictions_schema(whole.classes), key=("image_id", "view"), record=record)
    write_json(files.timing, {"seconds": seconds, "images": len(rows), "device": member.device.name})
    told = f"{part} predictions of {len(rows):,} images x {len(views)} views"
    log(f"{name}: {told} in {seconds:.1f} s on {member.device.name}")


def load_member(weights: Path, sidecar: Path, split: SplitFiles) -> tuple[dict[str, Any], Recipe, nn.Module]:
    """Load a trained network.

    Args:
        weights: the member's model.safetensors.
        sidecar: its model.json.
        split: classes and folds.

    Returns:
        The content of the sidecar, the recipe, and the network on the CPU.

    Raises:
        UserError: if the weights file was changed after training, or belongs to other classes or another split.
    """
    about = read_json(sidecar)
    recipe = Recipe.model_validate(about["recipe"])
    whole = read_label_space(split.classes)
    _, digest = read_folds(split.folds, split.certificate)
    raise_all(_member_faults(about, sidecar, list(whole.classes), digest))
    bands, metadata = _bands(about, recipe), encoding_of(about)
    model = build_model(recipe, known_classes(recipe, whole)[0], seed=0, bands=bands, metadata=metadata)
    model.load_state_dict(_read_weights(weights, about["sha256"]))
    return about, recipe, model


def encoding_of(about: dict[str, Any]) -> Encoding | None:
    """How the metadata that a member sees becomes numbers; None if it sees none.

    Args:
        about: its sidecar.
    """
    return Encoding.of_json(about["metadata"]["columns"]) if "metadata" in about else None


def _metadata(about: dict[str, Any], recipe: Recipe, manifest: Path | None, images: PackedImages) -> np.ndarray | None:
    """The metadata of all packed images as a member sees it, float32 (images, width); None if it sees none.

    Without a manifest all of it is missing.
    """
    encoding = encoding_of(about)
    if encoding is None or recipe.metadata is None:
        return None
    if manifest is None:
        return np.tile(encoding.missing, (len(images), 1))
    return encode(read_metadata(manifest, list(images.row_of), recipe.metadata.columns), encoding)


def _bands(about: dict[str, Any], recipe: Recipe) -> dict[str, list[int]]:
    """By the name of each regressed factor the borders that its head was trained with."""
    kinds = recipe.heads if isinstance(recipe.heads, dict) else {}
    return {name: about["age_borders"] for name, kind in kinds.items() if kind == "regression"}


def _member_faults(about: dict[str, Any], sidecar: Path, classes: list[str], digest: str) -> list[str]:
    again = f"retrain it: run your command again with `-R {sidecar.with_name('model.safetensors')}`"
    faults = []
    if about["split_sha256"] != digest:
        faults.append(f"{sidecar}: the member was trained on another split; {again}")
    if about["classes"] != classes:
        faults.append(f"{sidecar}: the member knows other classes, or another order of them; {again}")
    return faults


def _read_weights(path: Path, sha256: str) -> dict[str, torch.Tensor]:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UserError(
            f"{path}: cannot be read ({error.strerror}); retrain it: run your command again with `-R {path}`"
        ) from error
    if sha256_bytes(content) != sha256:
        raise UserError(
            f"{path}: is not the file that was trained (its SHA-256 differs); retrain it: run your command again with "
            f"`-R {path}`"
        )
    try:
        return load(content)
    except SafetensorError as error:
        raise UserError(
            f"{path}: holds no weights ({error}); retrain it: run your command again with `-R {path}`"
        ) from error


def _images_to_predict(images: PackedImages, folds: pd.DataFrame, part: str, fold: int) -> pd.DataFrame:
    """One row per image to predict (image_id, profile, label), for a part as `predict_member` names it."""
    if part == "test":
        return pd.DataFrame({"image_id": list(images.row_of), "profile": None, "label": None})
    learnt, validated = fold_rows(folds, fold)
    rows = {"oof": validated, HIDDEN: validated, "teach": learnt, "reserve": reserve_rows(folds)}[part]
    return rows[["image_id", "profile", "label"]].reset_index(drop=True)


def _long_table(rows: pd.DataFrame, logits: dict[str, np.ndarray], classes: tuple[str, ...]) -> pd.DataFrame:
    """One row per image and view; the views of an image follow one another."""
    views = list(logits)
    long = rows.loc[rows.index.repeat(len(views))].reset_index(drop=True)
    long["label"] = long["label"].astype("Int16")
    long["view"] = views * len(rows)
    stacked = np.stack([logits[view] for view in views], axis=1).reshape(len(long), len(classes))
    return pd.concat([long, pd.DataFrame(stacked, columns=[LOGIT + name for name in classes])], axis=1)


def _tracked(what: str, batches: Any, total: int) -> Any:
    return track(batches, what, total)
