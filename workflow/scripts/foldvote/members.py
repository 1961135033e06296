"""The two stages of a member: train it, and let it predict. Both check that all their inputs belong together."""

import importlib.metadata
import platform
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from safetensors import SafetensorError
from safetensors.torch import load, save

from foldvote import __version__
from foldvote.batches import Draws
from foldvote.checkpoint import drop_checkpoints
from foldvote.compute import Compute, choose_compute
from foldvote.config import Recipe, Runtime
from foldvote.console import say, track
from foldvote.errors import Refusal, refuse_all
from foldvote.files import canonical, read_json, sha256_bytes, sha256_file, write_bytes, write_json
from foldvote.folds import fold_rows, read_folds
from foldvote.inference import predict_logits
from foldvote.labels import read_scheme
from foldvote.locks import folder_lock
from foldvote.models import build_model
from foldvote.pixels import Pixels
from foldvote.tables import HISTORY, LOGIT, predictions_schema, write_table
from foldvote.training import Clock, Member, fit


@dataclass(frozen=True)
class SplitFiles:
    """What tells the classes and the split: data/classes.json, folds/folds.parquet, folds/certificate.json."""

    classes: Path
    folds: Path
    certificate: Path


@dataclass(frozen=True)
class MemberFiles:
    """What a trained member leaves behind."""

    weights: Path
    last: Path
    sidecar: Path
    history: Path
    timing: Path


@dataclass(frozen=True)
class Machine:
    """What a job may use: GPUs granted, CPU threads, and the `runtime` section of the configuration."""

    gpus: int
    threads: int
    runtime: Runtime

    def workers(self, compute: Compute) -> int:
        """Loader processes: as configured; else all threads but one beside a GPU, and one beside a CPU network."""
        if self.runtime.workers is not None:
            return self.runtime.workers
        return max(self.threads - 1, 1) if compute.device.type == "cuda" else min(self.threads - 1, 1)


def train_member(
    draws: Draws,
    recipe: Recipe,
    code: str,
    pixels_path: Path,
    split: SplitFiles,
    pretrained: Path | None,
    resume: Path,
    files: MemberFiles,
    machine: Machine,
) -> None:
    """Train one member and write its weights, sidecar, history and timing.

    Args:
        draws: seed, model name and fold.
        recipe: how it is trained.
        code: digest of the training code; a checkpoint of other code is not used.
        pixels_path: packed training images.
        split: classes and folds.
        pretrained: local weights file, or None.
        resume: folder of the training state, emptied at the end.
        files: what to write.
        machine: what may be used.

    Raises:
        Refusal: if inputs do not belong together, another job holds the resume folder, or training diverges.
        Interrupted: when a signal asked to stop; the state is saved.
    """
    compute = choose_compute(recipe, machine.gpus, machine.threads)
    with folder_lock(resume, say):
        scheme = read_scheme(split.classes)
        folds, digest = read_folds(split.folds, split.certificate)
        training, validation = fold_rows(folds, draws.fold)
        pixels = _matching_pixels(pixels_path, recipe, read_json(split.certificate)["data_sha256"])
        origin = {
            "model": draws.model,
            "fold": draws.fold,
            "seed": draws.seed,
            "split_sha256": digest,
            "data_sha256": pixels.record["data_sha256"],
            "classes": list(scheme.classes),
            "pretrained_sha256": sha256_file(pretrained) if pretrained else None,
        }
        fingerprint = (
            origin | {"code": code} | {f"recipe.{key}": canonical(value) for key, value in recipe.model_dump().items()}
        )
        member = Member(draws, recipe, len(scheme.classes), pretrained, pixels, training, validation, fingerprint)
        say(
            f"{member.name}: {len(training):,} images to learn from, {len(validation):,} to validate, on {compute.name}"
        )
        trained = fit(
            member,
            compute,
            resume,
            machine.workers(compute),
            machine.runtime.predict_batch,
            machine.runtime.checkpoint_minutes * 60,
        )
        weights, last = save(trained.best if recipe.epoch == "best" else trained.last), save(trained.last)
        write_bytes(files.weights, weights)
        write_bytes(files.last, last)
        history = trained.history.astype({"epoch": "int32"})
        write_table(history, files.history, HISTORY, key=("epoch",), record=origin)
        used = history[history["best"]].iloc[0] if recipe.epoch == "best" else history.iloc[-1]
        sidecar = {
            "recipe": recipe.model_dump(mode="json"),
            "sha256": sha256_bytes(weights),
            "last_sha256": sha256_bytes(last),
            "epoch": int(used["epoch"]),
            "val_macro_f1": float(used["val_macro_f1"]),
            "versions": _versions(),
        }
        write_json(files.sidecar, origin | sidecar)
        seconds = float(history["seconds"].sum())
        write_json(files.timing, {"seconds": seconds, "images": len(training) * recipe.epochs, "device": compute.name})
        drop_checkpoints(resume)


def predict_member(
    weights: Path,
    sidecar: Path,
    pixels_path: Path,
    split: SplitFiles,
    part: str,
    views: list[str],
    predictions: Path,
    timing: Path,
    machine: Machine,
) -> None:
    """Predict the images that a member never saw, under every view, and write the logits.

    Args:
        weights: the member's model.safetensors.
        sidecar: its model.json.
        pixels_path: packed images of the training split (part "oof") or of the test split (part "test").
        split: classes and folds.
        part: "oof" predicts the validation images of the member's fold, "test" every image.
        views: names of the test-time transforms.
        predictions: the parquet table, a row an image and view.
        timing: JSON of seconds, images and device.
        machine: what may be used.

    Raises:
        Refusal: if the weights were altered, or belong to other classes, another split or other pixels.
    """
    about = read_json(sidecar)
    recipe = Recipe.model_validate(about["recipe"])
    compute = choose_compute(recipe, machine.gpus, machine.threads)
    scheme = read_scheme(split.classes)
    folds, digest = read_folds(split.folds, split.certificate)
    refuse_all(_member_faults(about, sidecar, list(scheme.classes), digest))
    model = build_model(recipe, len(scheme.classes), seed=0)
    model.load_state_dict(_read_weights(weights, about["sha256"]))
    pixels = _matching_pixels(pixels_path, recipe, about["data_sha256"] if part == "oof" else None)
    rows = _images_to_predict(pixels, fold_rows(folds, about["fold"])[1] if part == "oof" else None)

    name = f"{about['model']} fold {about['fold']}"
    clock = Clock()
    logits = predict_logits(
        compute.place(model),
        pixels,
        pixels.rows(rows["image_id"].tolist()),
        views,
        compute,
        machine.runtime.predict_batch,
        partial(_tracked, f"{name}: {part} predictions, batches"),
    )
    seconds = clock.lap()
    record = {key: about[key] for key in ("model", "fold", "split_sha256", "classes")} | {
        "split": part,
        "data_sha256": pixels.record["data_sha256"],
        "weights_sha256": about["sha256"],
        "views": list(views),
    }
    frame = _long_table(rows, logits, scheme.classes)
    write_table(frame, predictions, predictions_schema(scheme.classes), key=("image_id", "view"), record=record)
    write_json(timing, {"seconds": seconds, "images": len(rows), "device": compute.name})
    say(f"{name}: {part} predictions of {len(rows):,} images x {len(views)} views in {seconds:.1f} s on {compute.name}")


def _matching_pixels(path: Path, recipe: Recipe, data_sha256: str | None) -> Pixels:
    pixels = Pixels(path)
    expected = {"size": recipe.size, "roi": recipe.roi} | ({"data_sha256": data_sha256} if data_sha256 else {})
    differing = [name for name, value in expected.items() if pixels.record.get(name) != value]
    if differing:
        raise Refusal(
            f"{path}: was packed from other {', '.join(differing)} than this job expects; run `snakemake -R pixels`"
        )
    return pixels


def _member_faults(about: dict[str, Any], sidecar: Path, classes: list[str], digest: str) -> list[str]:
    again = f"retrain it with `snakemake -R {sidecar.with_name('model.safetensors')}`"
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
        raise Refusal(f"{path}: cannot be read ({error.strerror}); retrain it with `snakemake -R {path}`") from error
    if sha256_bytes(content) != sha256:
        raise Refusal(
            f"{path}: is not the file that was trained (its SHA-256 differs); retrain it with `snakemake -R {path}`"
        )
    try:
        return load(content)
    except SafetensorError as error:
        raise Refusal(f"{path}: holds no weights ({error}); retrain it with `snakemake -R {path}`") from error


def _images_to_predict(pixels: Pixels, validation: pd.DataFrame | None) -> pd.DataFrame:
    if validation is not None:
        return validation[["image_id", "profile", "label"]].reset_index(drop=True)
    return pd.DataFrame({"image_id": list(pixels.row_of), "profile": None, "label": None})


def _long_table(rows: pd.DataFrame, logits: dict[str, np.ndarray], classes: tuple[str, ...]) -> pd.DataFrame:
    """A row an image and view, the views of an image together."""
    views = list(logits)
    long = rows.loc[rows.index.repeat(len(views))].reset_index(drop=True)
    long["label"] = long["label"].astype("Int16")
    long["view"] = views * len(rows)
    stacked = np.stack([logits[view] for view in views], axis=1).reshape(len(long), len(classes))
    return pd.concat([long, pd.DataFrame(stacked, columns=[LOGIT + name for name in classes])], axis=1)


def _tracked(what: str, batches: Any, total: int) -> Any:
    return track(batches, what, total)


def _versions() -> dict[str, str]:
    packages = ("torch", "timm", "albumentations", "numpy", "opencv-python-headless")
    found = {"python": platform.python_version(), "foldvote": __version__}
    for name in packages:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found
