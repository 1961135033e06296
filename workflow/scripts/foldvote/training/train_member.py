"""The training job of one member: inputs in; weights, sidecar, history and timing out."""

import importlib.metadata
import math
import platform
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from foldvote import __version__
from foldvote.config.recipe import Recipe
from foldvote.config.run_plan import PlannedModel
from foldvote.io.files import write_json
from foldvote.io.parquet import write_table
from foldvote.runtime.device import Device, name_nondeterminism
from foldvote.runtime.distributed import SINGLE_RANK, Rank, join_process_group, rendezvous
from foldvote.runtime.job_log import log
from foldvote.runtime.launch import run_together
from foldvote.runtime.locks import folder_lock
from foldvote.runtime.memory import peak_memory
from foldvote.runtime.resources import JobResources
from foldvote.runtime.seeding import MemberSeeds
from foldvote.training.checkpoint import drop_checkpoints
from foldvote.training.history import history_schema
from foldvote.training.loop import Trainer, TrainResult, never_stop
from foldvote.training.state import MemberSpec, Progress, build_spec
from foldvote.training.tracking import no_sinks, open_sinks
from foldvote.training.training_set import MemberInputs
from foldvote.training.validation import out_of_time
from foldvote.training.weight_averaging import write_weights


@dataclass(frozen=True)
class MemberFiles:
    """The files of a trained member."""

    weights: Path
    last: Path
    sidecar: Path
    history: Path
    timing: Path


def train_member(
    seeds: MemberSeeds,
    recipe: Recipe,
    code: str,
    inputs: MemberInputs,
    resume_dir: Path,
    tracking_dir: Path,
    files: MemberFiles,
    resources: JobResources,
    planned: PlannedModel | None = None,
) -> None:
    """Train one member and write its weights, sidecar, history and timing.

    Args:
        seeds: seed, model name and fold.
        recipe: how it is trained.
        code: digest of the training code; a checkpoint of other code is not used.
        inputs: what it learns from.
        resume_dir: folder of the checkpoints, which are deleted at the end.
        tracking_dir: folder in which TensorBoard and other trackers have their folders.
        files: what to write.
        resources: what may be used; several GPUs train the member together, one process each.
        planned: what the plan of the run says, if there is one: after how many minutes to end, and how many epochs
            were asked for.

    Raises:
        UserError: if inputs do not belong together, another job holds the resume folder, or training diverges.
        Interrupted: when a signal asked to stop; the state is saved.
    """
    own = resources.per_process
    train = partial(_train, seeds, recipe, code, inputs, resume_dir, tracking_dir, files, own, planned)
    with folder_lock(resume_dir, log):
        if resources.processes == 1:
            train(SINGLE_RANK)
            return
        with rendezvous() as port:
            body = partial(_train_as_rank, train, resources.processes, port)
            run_together(body, resources.processes, f"{seeds.model} fold {seeds.fold}")


def _train_as_rank(train: Callable[[Rank], None], processes: int, port: int, rank: int) -> None:
    """What one of several processes does."""
    train(Rank(rank, processes, port))


def _train(
    seeds: MemberSeeds,
    recipe: Recipe,
    code: str,
    inputs: MemberInputs,
    resume_dir: Path,
    tracking_dir: Path,
    files: MemberFiles,
    resources: JobResources,
    planned: PlannedModel | None,
    rank: Rank,
) -> None:
    """Train in this process; the first of several writes what comes out."""
    device = resources.device(recipe, rank.rank)
    spec = build_spec(seeds, recipe, code, inputs)
    with join_process_group(rank, device.torch_device) as group:
        device = replace(device, group=group)
        _log_start(spec, device.name)
        settings = {"seed": seeds.seed, "fold": seeds.fold, **recipe.model_dump(mode="json")}
        run_name = f"model={seeds.model}/fold={seeds.fold}"
        trackers = partial(open_sinks, resources.runtime.tracking, tracking_dir, run_name, settings, log)
        workers = resources.workers(device)
        sinks = trackers if group.first else no_sinks
        ends = partial(out_of_time, planned.minutes) if planned else never_stop
        trainer = Trainer(spec, device, resume_dir, resources.runtime, workers, sinks, ends)
        with name_nondeterminism():
            trained = trainer.fit()
    if not group.first:
        return
    write_member(trained, spec, device, files, trainer.state.progress, planned)
    _write_timing(trained, spec, device.name, trainer.state.progress.waited, files.timing)
    drop_checkpoints(resume_dir)


def _log_start(spec: MemberSpec, device_name: str) -> None:
    chosen = spec.training_set
    pseudo = f" ({chosen.origin['pseudo']['images']:,} of them test images)" if "pseudo" in chosen.origin else ""
    recipe = spec.recipe
    taught = f" taught by {', '.join(recipe.teachers)} fold {spec.seeds.fold}," if recipe.teachers else ""
    log(
        f"{spec.name}: {len(chosen.training):,} images to learn from{pseudo},{taught} "
        f"{len(chosen.validation):,} to validate, on {device_name}"
    )


def write_member(
    trained: TrainResult,
    spec: MemberSpec,
    device: Device,
    files: MemberFiles,
    progress: Progress,
    planned: PlannedModel | None = None,
) -> None:
    """Write the weights, the history and the sidecar of a member.

    Args:
        trained: what its training left.
        spec: what it is made of.
        device: where it was trained.
        files: what to write.
        progress: how its training ended, in which kernels.
        planned: what the plan of the run says, if there is one.
    """
    digest, last_digest = write_weights(trained.chosen, files.weights), write_weights(trained.last, files.last)
    history = trained.history.astype({"epoch": "int32"})
    write_table(history, files.history, history_schema(history), key=("epoch",), record=spec.origin)
    sidecar = {
        "recipe": spec.recipe.model_dump(mode="json"),
        "sha256": digest,
        "last_sha256": last_digest,
        "epochs": trained.epochs,
        **{name: float(value) if math.isfinite(value) else None for name, value in trained.scores.items()},
        "parts": trained.parts,
        "reproducible": progress.reproducible,
        "compiled": progress.compiled,
        "dtype": str(device.dtype).removeprefix("torch."),
        "versions": _versions(),
    }
    if not spec.validates:
        sidecar["validation_images"] = 0  # the reason why there are no scores
    if planned is not None:
        sidecar["plan"] = {"asked_epochs": planned.asked_epochs, "trained_epochs": len(history)}
    write_json(files.sidecar, spec.origin | sidecar)


def _write_timing(trained: TrainResult, spec: MemberSpec, device_name: str, waited: float, path: Path) -> None:
    """Write how long the training took, how much of it was spent waiting for images, and what memory it used."""
    seconds, memory = float(trained.history["seconds"].sum()), peak_memory()
    images = spec.order.steps * spec.recipe.batch_size * len(trained.history)
    timing = {"seconds": seconds, "waited_seconds": waited, "images": images, "device": device_name}
    write_json(path, timing | memory)
    gpu = f" and {memory['peak_gpu_bytes'] / 1e9:.2f} GB on the GPU" if memory["peak_gpu_bytes"] else ""
    log(
        f"{spec.name}: trained in {seconds:,.1f} s, {waited / max(seconds, 1e-9):.0%} of it waiting for images; "
        f"at most {memory['peak_host_bytes'] / 1e9:.2f} GB of memory{gpu}"
    )


def _versions() -> dict[str, str]:
    """Versions of Python, of this library and of the packages that the weights depend on."""
    packages = ("torch", "timm", "albumentations", "numpy", "opencv-python-headless")
    found = {"python": platform.python_version(), "foldvote": __version__}
    for name in packages:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found
