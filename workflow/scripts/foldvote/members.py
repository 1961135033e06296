"""A member's training as a job: inputs that belong together in; weights, sidecar, history and timing out."""

import importlib.metadata
import platform
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from safetensors.torch import save

from foldvote import __version__
from foldvote.batches import Draws
from foldvote.checkpoint import drop_checkpoints
from foldvote.compute import choose_compute
from foldvote.console import say
from foldvote.epochs import Trained
from foldvote.errors import Refusal
from foldvote.files import canonical, read_json, sha256_bytes, sha256_file, write_bytes, write_json
from foldvote.folds import fold_rows, read_folds
from foldvote.jobs import Machine, SplitFiles, matching_pixels
from foldvote.labels import read_scheme
from foldvote.locks import folder_lock
from foldvote.recipes import Recipe
from foldvote.run import Member
from foldvote.tables import HISTORY, read_table, write_table
from foldvote.targets import training_targets
from foldvote.tracking import open_sinks
from foldvote.training import fit


@dataclass(frozen=True)
class MemberInputs:
    """What a member is trained from.

    Attributes:
        pixels: packed training images.
        split: classes and folds.
        pretrained: local weights file, or None.
        manifest: of the training images; only asked for by a recipe that treats labels by age.
        age_borders: borders of the age bands in years, where there are any.
    """

    pixels: Path
    split: SplitFiles
    pretrained: Path | None = None
    manifest: Path | None = None
    age_borders: tuple[int, int] | None = None


@dataclass(frozen=True)
class MemberFiles:
    """What a trained member leaves behind."""

    weights: Path
    last: Path
    sidecar: Path
    history: Path
    timing: Path


def train_member(
    draws: Draws,
    recipe: Recipe,
    code: str,
    inputs: MemberInputs,
    resume: Path,
    tracking: Path,
    files: MemberFiles,
    machine: Machine,
) -> None:
    """Train one member and write its weights, sidecar, history and timing.

    Args:
        draws: seed, model name and fold.
        recipe: how it is trained.
        code: digest of the training code; a checkpoint of other code is not used.
        inputs: what it learns from.
        resume: folder of the training state, emptied at the end.
        tracking: folder of results, which TensorBoard and the like have their folders in.
        files: what to write.
        machine: what may be used.

    Raises:
        Refusal: if inputs do not belong together, another job holds the resume folder, or training diverges.
        Interrupted: when a signal asked to stop; the state is saved.
    """
    compute = choose_compute(recipe, machine.gpus, machine.threads)
    with folder_lock(resume, say):
        member, origin = _assembled(draws, recipe, code, inputs)
        say(
            f"{member.name}: {len(member.training):,} images to learn from, {len(member.validation):,} to validate, "
            f"on {compute.name}"
        )
        settings = {"seed": draws.seed, "fold": draws.fold, **recipe.model_dump(mode="json")}
        trained = fit(
            member,
            compute,
            resume,
            machine.workers(compute),
            machine.runtime,
            partial(
                open_sinks,
                machine.runtime.tracking,
                tracking,
                f"model={draws.model}/fold={draws.fold}",
                settings,
                say,
            ),
        )
        _write(trained, recipe, origin, files)
        seconds, epochs = float(trained.history["seconds"].sum()), len(trained.history)
        images = member.order.steps * recipe.batch_size * epochs
        write_json(files.timing, {"seconds": seconds, "images": images, "device": compute.name})
        drop_checkpoints(resume)


def _assembled(draws: Draws, recipe: Recipe, code: str, inputs: MemberInputs) -> tuple[Member, dict[str, Any]]:
    """The member, and where all that it is made of comes from."""
    scheme = read_scheme(inputs.split.classes)
    folds, digest = read_folds(inputs.split.folds, inputs.split.certificate)
    training, validation = fold_rows(folds, draws.fold)
    pixels = matching_pixels(inputs.pixels, recipe, read_json(inputs.split.certificate)["data_sha256"])
    origin = {
        "model": draws.model,
        "fold": draws.fold,
        "seed": draws.seed,
        "split_sha256": digest,
        "data_sha256": pixels.record["data_sha256"],
        "classes": list(scheme.classes),
        "age_borders": list(inputs.age_borders) if inputs.age_borders else None,
        "pretrained_sha256": sha256_file(inputs.pretrained) if inputs.pretrained else None,
    }
    keys = {f"recipe.{key}": canonical(value) for key, value in recipe.model_dump(mode="json").items()}
    targets = training_targets(
        scheme,
        training["label"].to_numpy(np.int64),
        _years(inputs.manifest, training) if recipe.labels.active else None,
        recipe.labels,
        inputs.age_borders,
    )
    member = Member(
        draws,
        recipe,
        scheme,
        inputs.pretrained,
        pixels,
        training,
        targets,
        validation,
        inputs.age_borders,
        origin | {"code": code} | keys,
    )
    return member, origin


def _years(manifest: Path | None, training: pd.DataFrame) -> np.ndarray:
    """Age in years of each training image, NaN where it is not known."""
    if manifest is None:
        raise Refusal("labels: are treated by age, and no manifest was given to take it from")
    ages = read_table(manifest).set_index("image_id")["age_years"]
    return ages.reindex(training["image_id"]).to_numpy(np.float64)


def _write(trained: Trained, recipe: Recipe, origin: dict[str, Any], files: MemberFiles) -> None:
    weights, last = save(trained.chosen), save(trained.last)
    write_bytes(files.weights, weights)
    write_bytes(files.last, last)
    write_table(trained.history.astype({"epoch": "int32"}), files.history, HISTORY, key=("epoch",), record=origin)
    sidecar = {
        "recipe": recipe.model_dump(mode="json"),
        "sha256": sha256_bytes(weights),
        "last_sha256": sha256_bytes(last),
        "epochs": trained.epochs,
        **{name: float(value) for name, value in trained.scores.items()},
        "parts": trained.parts,
        "versions": _versions(),
    }
    write_json(files.sidecar, origin | sidecar)


def _versions() -> dict[str, str]:
    packages = ("torch", "timm", "albumentations", "numpy", "opencv-python-headless")
    found = {"python": platform.python_version(), "foldvote": __version__}
    for name in packages:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found
