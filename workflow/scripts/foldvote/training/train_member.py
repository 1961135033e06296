"""A member's training as a job: inputs that belong together in; weights, sidecar, history and timing out."""

import importlib.metadata
import platform
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from safetensors.torch import save

from foldvote import __version__
from foldvote.config.data import NumericFactor
from foldvote.config.recipe import Recipe
from foldvote.io.files import canonical, sha256_bytes, sha256_file, write_bytes, write_json
from foldvote.io.parquet import write_table
from foldvote.runtime.device import choose_device
from foldvote.runtime.distributed import SINGLE_RANK, Rank, join_process_group, rendezvous
from foldvote.runtime.job_log import log
from foldvote.runtime.launch import run_together
from foldvote.runtime.locks import folder_lock
from foldvote.runtime.resources import JobResources
from foldvote.runtime.seeding import MemberSeeds
from foldvote.splits.folds import SplitFiles
from foldvote.training.checkpoint import drop_checkpoints
from foldvote.training.history import HISTORY
from foldvote.training.loop import TrainResult, fit, no_sinks
from foldvote.training.state import MemberSpec
from foldvote.training.tracking import open_sinks
from foldvote.training.training_set import PseudoInputs, TrainingSet, build_training_set


@dataclass(frozen=True)
class MemberInputs:
    """What a member is trained from.

    Attributes:
        pixels: packed training images.
        split: classes and folds.
        pretrained: local weights file, or None.
        manifest: of the training images; only asked for by a recipe that treats labels by age.
        numeric: the factor with a number behind it, where there is one.
        pseudo: test images and what a first round says of them; only for a recipe that learns from them.
    """

    pixels: Path
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
class MemberFiles:
    """What a trained member leaves behind."""

    weights: Path
    last: Path
    sidecar: Path
    history: Path
    timing: Path


def train_member(
    draws: MemberSeeds,
    recipe: Recipe,
    code: str,
    inputs: MemberInputs,
    resume: Path,
    tracking: Path,
    files: MemberFiles,
    machine: JobResources,
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
        machine: what may be used; several GPUs train the member together, a process each.

    Raises:
        UserError: if inputs do not belong together, another job holds the resume folder, or training diverges.
        Interrupted: when a signal asked to stop; the state is saved.
    """
    train = partial(_train, draws, recipe, code, inputs, resume, tracking, files, machine.share)
    with folder_lock(resume, log):
        if machine.processes == 1:
            train(SINGLE_RANK)
            return
        with rendezvous() as port:
            beside = partial(_train_beside, train, machine.processes, port)
            run_together(beside, machine.processes, f"{draws.model} fold {draws.fold}")


def _train_beside(train: Callable[[Rank], None], processes: int, port: int, rank: int) -> None:
    """The job of one of several processes."""
    train(Rank(rank, processes, port))


def _train(
    draws: MemberSeeds,
    recipe: Recipe,
    code: str,
    inputs: MemberInputs,
    resume: Path,
    tracking: Path,
    files: MemberFiles,
    machine: JobResources,
    place: Rank,
) -> None:
    compute = choose_device(recipe, machine.gpus, machine.threads, place.rank)
    lessons = build_training_set(
        recipe, draws.fold, inputs.pixels, inputs.split, inputs.manifest, inputs.numeric, inputs.pseudo
    )
    member, origin = assemble(draws, recipe, code, inputs, lessons)
    with join_process_group(place, compute.device) as team:
        compute = replace(compute, team=team)
        pseudo = f" ({lessons.origin['pseudo']['images']:,} of them test images)" if "pseudo" in lessons.origin else ""
        log(
            f"{member.name}: {len(lessons.training):,} images to learn from{pseudo}, "
            f"{len(lessons.validation):,} to validate, on {compute.name}"
        )
        settings = {"seed": draws.seed, "fold": draws.fold, **recipe.model_dump(mode="json")}
        run_name = f"model={draws.model}/fold={draws.fold}"
        sinks = partial(open_sinks, machine.runtime.tracking, tracking, run_name, settings, log)
        workers = machine.workers(compute)
        trained = fit(member, compute, resume, workers, machine.runtime, sinks if team.first else no_sinks)
    if not team.first:
        return
    _write(trained, recipe, origin, files)
    seconds, epochs = float(trained.history["seconds"].sum()), len(trained.history)
    images = member.order.steps * recipe.batch_size * epochs
    write_json(files.timing, {"seconds": seconds, "images": images, "device": compute.name})
    drop_checkpoints(resume)


def assemble(
    draws: MemberSeeds, recipe: Recipe, code: str, inputs: MemberInputs, lessons: TrainingSet
) -> tuple[MemberSpec, dict[str, Any]]:
    """The member, and where all that it is made of comes from; arguments as in `train_member`."""
    origin = {
        "model": draws.model,
        "fold": draws.fold,
        "seed": draws.seed,
        **lessons.origin,
        "age_borders": list(inputs.numeric.borders) if inputs.numeric else None,
        "pretrained_sha256": sha256_file(inputs.pretrained) if inputs.pretrained else None,
    }
    keys = {f"recipe.{key}": canonical(value) for key, value in recipe.model_dump(mode="json").items()}
    fingerprint = origin | {"code": code} | keys
    return MemberSpec(draws, recipe, lessons, inputs.pretrained, inputs.bands, fingerprint), origin


def _write(trained: TrainResult, recipe: Recipe, origin: dict[str, Any], files: MemberFiles) -> None:
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
