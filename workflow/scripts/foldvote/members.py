"""A member's training as a job: inputs that belong together in; weights, sidecar, history and timing out."""

import importlib.metadata
import platform
from dataclasses import dataclass
from pathlib import Path

from safetensors.torch import save

from foldvote import __version__
from foldvote.batches import Draws
from foldvote.checkpoint import drop_checkpoints
from foldvote.compute import choose_compute
from foldvote.console import say
from foldvote.files import canonical, read_json, sha256_bytes, sha256_file, write_bytes, write_json
from foldvote.folds import fold_rows, read_folds
from foldvote.jobs import Machine, SplitFiles, matching_pixels
from foldvote.labels import read_scheme
from foldvote.locks import folder_lock
from foldvote.sections import Recipe
from foldvote.tables import HISTORY, write_table
from foldvote.training import Member, fit


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
        pixels = matching_pixels(pixels_path, recipe, read_json(split.certificate)["data_sha256"])
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


def _versions() -> dict[str, str]:
    packages = ("torch", "timm", "albumentations", "numpy", "opencv-python-headless")
    found = {"python": platform.python_version(), "foldvote": __version__}
    for name in packages:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found
