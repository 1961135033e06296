"""A worker of a search: a job that trains one trial after another until the wanted number of trials is finished."""

import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from threading import Event
from typing import Any

import numpy as np
import optuna
import pandas as pd
import torch
from optuna.trial import TrialState

from foldvote.config.layout_facts import NumericFactor
from foldvote.config.named_weights import pinned_digest
from foldvote.config.recipe import Recipe
from foldvote.config.search_space import label
from foldvote.data.label_space import LabelSpace
from foldvote.errors import Interrupted, UserError
from foldvote.evaluation.metric_registry import Answers, Metric, find_metric
from foldvote.evaluation.probabilities import softmax
from foldvote.inference.forward import predict_logits
from foldvote.inference.tta import views_of
from foldvote.io.files import read_json, sha256_file, sha256_lines, write_json
from foldvote.io.paths import member_of
from foldvote.models.factory import build_model
from foldvote.runtime.device import Device, name_nondeterminism
from foldvote.runtime.job_log import log
from foldvote.runtime.locks import folder_lock
from foldvote.runtime.resources import JobResources
from foldvote.runtime.seeding import MemberSeeds
from foldvote.runtime.signals import stop_on_signal
from foldvote.splits.folds import SplitFiles, read_folds
from foldvote.training.first_round import PseudoInputs
from foldvote.training.loop import Trainer, TrainResult
from foldvote.training.state import MemberSpec, build_spec
from foldvote.training.training_set import MemberInputs, numbers_sha256
from foldvote.tuning.pruning import TrialPruner
from foldvote.tuning.study import (
    RESULT,
    SearchSpec,
    Trial,
    begin_study,
    begin_trial,
    finished_duplicate,
    open_journal,
    requeue,
    result_of,
    worker_lock,
)


@dataclass(frozen=True)
class SearchInputs:
    """The input files of all trials; a single trial uses those that its recipe needs.

    Attributes:
        split: classes and folds.
        images: packed training images, in the folders of their framings (`Framing.folder`).
        pretrained: local weights files, by their path in the recipes or the name of timm's weights.
        manifest: manifest of the training images, if a recipe may treat labels by age.
        numeric: the factor that bins a number, such as age; None if there is none.
        pseudo_images: packed test images, in the same folders, if a recipe may learn from them.
        pseudo: first-round test predictions, in folders `model=<m>/fold=<k>`.
        metric: the file of the user's own metric, if trials are scored by it or choose by it.
        teachers: what teachers predict of the images that they were trained on, in folders as `pseudo`.
        pretrained_sha256: the SHA-256 that weights files must have, by the name of timm's weights.
        metadata: as of `MemberInputs`, if a recipe may see metadata.
    """

    split: SplitFiles
    images: Sequence[Path]
    pretrained: Mapping[str, Path] = field(default_factory=dict)
    manifest: Path | None = None
    numeric: NumericFactor | None = None
    pseudo_images: Sequence[Path] = ()
    pseudo: Sequence[Path] = ()
    metric: Path | None = None
    teachers: Sequence[Path] = ()
    pretrained_sha256: Mapping[str, str] = field(default_factory=dict)
    metadata: tuple[Path, ...] = ()

    def of(self, recipe: Recipe, fold: int) -> MemberInputs:
        """The input files of the member of a fold with a recipe."""
        keys = [(name, fold) for name in recipe.first_round]
        return MemberInputs(
            _packed(self.images, recipe),
            self.split,
            self.pretrained[recipe.weights] if recipe.weights else None,
            self.manifest,
            self.numeric,
            PseudoInputs(
                _packed(self.pseudo_images, recipe), tuple(path for path in self.pseudo if member_of(path) in keys)
            )
            if keys
            else None,
            self.metric,
            tuple(path for path in self.teachers if member_of(path) in {(name, fold) for name in recipe.teachers}),
            metadata=self.metadata,
        )


def run_worker(
    search: SearchSpec,
    worker: int,
    folder: Path,
    inputs: SearchInputs,
    resources: JobResources,
    code: str,
    done: Path,
) -> None:
    """Train trials until the wanted number is finished or running, and write the numbers of this job's trials.

    Args:
        search: the search; its `origin` is set here.
        worker: number of this worker.
        folder: folder of the search, with its journal and training states.
        inputs: the input files of the trials.
        resources: the resources of this job.
        code: digest of the code.
        done: the JSON file to write.

    Raises:
        UserError: if the inputs do not belong together, another process runs with this worker number, the GPU cannot
            be used, or the first trials all fail.
        Interrupted: if a signal asked to stop; the unfinished trial is in the queue again, with its training state.
    """
    resources.check_gpu()  # not the fault of a trial
    search = replace(search, origin=origin_of(inputs, code))
    numbers: list[int] = []
    with folder_lock(worker_lock(folder, worker), log), stop_on_signal() as stopping:
        study = begin_study(open_journal(folder / "journal.log"), folder, search)
        started, hours = time.monotonic(), search.tune.timeout_hours
        while not stopping.is_set() and (trial := begin_trial(study, folder, search, worker)):
            numbers.append(trial.number)
            _try(trial, study, search, folder, partial(_score, inputs=inputs, resources=resources, stopping=stopping))
            if hours is not None and time.monotonic() - started > hours * 3600:
                log(f"tune: worker {worker} begins no more trials after {hours:g} hours")
                break
        if stopping.is_set():
            raise Interrupted(f"tune: worker {worker} stopped as asked; the same command goes on from here")
    write_json(done, {"study": search.name, "worker": worker, "trials": numbers})


def origin_of(inputs: SearchInputs, code: str) -> dict[str, Any]:
    """Digests of everything that trials are trained from: scores are only comparable if these are equal.

    Args:
        inputs: the input files of the trials.
        code: digest of the code.
    """
    folds, digest = read_folds(inputs.split.folds, inputs.split.certificate)
    strata = folds.sort_values(["repeat", "image_id"])["stratum"]  # which a sampler may draw by
    return {
        "code": code,
        "split_sha256": digest,
        "strata_sha256": sha256_lines(iter(strata)),
        "data_sha256": read_json(inputs.split.certificate)["data_sha256"],
        "age_borders": list(inputs.numeric.borders if inputs.numeric else ()),
        "pretrained_sha256": {
            name: pinned_digest(path, inputs.pretrained_sha256.get(name))
            for name, path in sorted(inputs.pretrained.items())
        },
        "pseudo_sha256": [sha256_file(path) for path in sorted(inputs.pseudo)],
        **({"teachers_sha256": [sha256_file(path) for path in sorted(inputs.teachers)]} if inputs.teachers else {}),
        **(
            {"numbers_sha256": numbers_sha256(inputs.manifest, inputs.numeric)}
            if inputs.manifest and inputs.numeric
            else {}
        ),
        **({"metric_sha256": sha256_file(inputs.metric)} if inputs.metric else {}),
        **({"metadata_sha256": [sha256_file(path) for path in inputs.metadata]} if inputs.metadata else {}),
    }


def _try(
    trial: Trial, study: optuna.Study, search: SearchSpec, folder: Path, train: Callable[..., float | None]
) -> None:
    """Train one trial, and report its result to the study and the log."""
    values = ", ".join(f"{key} {_short(value)}" for key, value in trial.values.items())
    if twin := finished_duplicate(study, trial):
        log(f"tune: trial {trial.number}: has the values of trial {twin.number}, and so its score")
        trial.asked.set_user_attr(RESULT, result_of(twin) | {"epochs": 0, "seconds": 0.0, "same_as": twin.number})
        study.tell(trial.asked, twin.value)
        return
    log(f"tune: trial {trial.number}: {values}")
    resume = folder / "resume" / search.name / f"trial={trial.first}"
    pruner, score, fault = TrialPruner(trial.asked, search), None, ""
    try:
        score = train(trial, search, pruner, resume)
    except _Failed as failure:
        fault = str(failure)
    except (Interrupted, UserError) as stop:
        requeue(study, study.get_trials(deepcopy=False)[trial.number], its_fault=False)
        if isinstance(stop, UserError):
            raise
        raise Interrupted(f"tune: trial {trial.number} stopped as asked; the same command goes on from there") from stop
    trial.asked.set_user_attr(RESULT, pruner.result | ({"fault": fault} if fault else {}))
    # A trial whose values cannot be trained is reported as pruned, not as failed: TPE learns to avoid pruned values and
    # ignores failed trials.
    study.tell(trial.asked, score, state=TrialState.COMPLETE if score is not None else TrialState.PRUNED)
    shutil.rmtree(resume, ignore_errors=True)
    text = f"failed: {fault}" if fault else f"{search.tune.score} {score:.4f}" if score is not None else "pruned"
    log(f"tune: trial {trial.number}: {text}")


class _Failed(Exception):
    """The values of a trial cannot be trained; the text gives the reason."""


@contextmanager
def _values_at_fault() -> Iterator[None]:
    """Turn a UserError of this block into `_Failed`: the trial failed, the job goes on."""
    try:
        yield
    except UserError as error:
        raise _Failed("; ".join(error.faults)) from error


def _score(
    trial: Trial,
    search: SearchSpec,
    pruner: TrialPruner,
    resume: Path,
    inputs: SearchInputs,
    resources: JobResources,
    stopping: Event,
) -> float | None:
    """Train the folds of a trial in turn. Returns the score of all their out-of-fold predictions, or None if pruned."""
    with _values_at_fault():
        recipe = search.recipe_of(trial.values).definite
        device = resources.device(recipe)
    parts, metric = [], find_metric(search.tune.score, inputs.metric)
    for place, fold in enumerate(search.folds):
        if stopping.is_set():
            raise Interrupted
        own = inputs.of(recipe, fold)
        spec = build_spec(MemberSeeds(search.seed, search.model, fold), recipe, search.origin["code"], own)
        with _values_at_fault(), name_nondeterminism():
            trainer = Trainer(
                replace(spec, title=f"trial {trial.number} fold {fold}", scored_by=(search.tune.score,)),
                device,
                resume / f"fold={fold}",
                resources.runtime,
                resources.workers(device),
                stop_early=partial(pruner.report, place, recipe),
            )
            trained = trainer.fit()
        if trainer.state.progress.compiled:
            torch.compiler.reset()  # otherwise the cached code counts against the limits of the next trial
        pruner.close(place, recipe, trained.history, device.name)
        if pruner.pruned:
            return None
        probabilities = _out_of_fold(trained, spec, search.views, device, resources)
        parts.append(spec.training_set.validation[["image_id", "label"]].assign(p=list(probabilities)))
        pruner.note(fold, metric.value_or_nan(Answers.of(*pooled(parts[-1:])), spec.training_set.label_space))
    return score_of(metric, *pooled(parts), spec.training_set.label_space)


def _out_of_fold(
    trained: TrainResult,
    spec: MemberSpec,
    views: Sequence[str | dict[str, Any]],
    device: Device,
    resources: JobResources,
) -> np.ndarray:
    """Probabilities of a fold's validation images, the mean over the views: float64 (images, classes)."""
    training_set = spec.training_set
    metadata = training_set.metadata
    encoding, beside = (metadata.encoding, metadata.rows) if metadata else (None, None)
    model = build_model(spec.recipe, training_set.label_space, seed=0, bands=spec.inputs.bands, metadata=encoding)
    model.load_state_dict(trained.chosen)
    rows = training_set.images.rows(training_set.validation["image_id"].tolist())
    ready = views_of(spec.recipe, views)
    batch_size = resources.runtime.predict_batch
    images = training_set.images
    logits = predict_logits(device.place(model), images, rows, ready, device, batch_size, metadata=beside)
    return np.mean([softmax(own) for own in logits.values()], axis=0)


def _packed(paths: Sequence[Path], recipe: Recipe) -> Path:
    """The file of images that are packed as a recipe says."""
    wanted = Path(recipe.packed.folder).parts
    found = [path for path in paths if path.parent.parts[-len(wanted) :] == wanted]
    if not found:
        raise UserError(f"no images are packed at {' and '.join(wanted)}; run the same command again")
    return found[0]


def pooled(parts: Sequence[pd.DataFrame]) -> tuple[np.ndarray, np.ndarray]:
    """Combine the out-of-fold predictions of several folds.

    With repeated folds an image occurs several times; its predictions are averaged.

    Args:
        parts: for each fold one row per image: image_id, label and p, an array of shape (classes,).

    Returns:
        Labels, int64 (images,), and probabilities, float64 (images, classes).
    """
    rows = pd.concat(parts, ignore_index=True)
    ids, first, places = np.unique(rows["image_id"].to_numpy(str), return_index=True, return_inverse=True)
    summed = np.zeros((len(ids), len(rows["p"].iloc[0])))
    np.add.at(summed, places, np.stack(rows["p"].tolist()))
    return rows["label"].to_numpy(np.int64)[first], summed / np.bincount(places)[:, None]


def score_of(metric: Metric, labels: np.ndarray, probabilities: np.ndarray, label_space: LabelSpace) -> float:
    """The score of predictions.

    Args:
        metric: what they are scored by.
        labels: class codes, int64 (images,).
        probabilities: shape (images, classes), rows sum to 1.
        label_space: the classes.

    Raises:
        UserError: if the score is not defined for these images.
    """
    value = metric.value(Answers.of(labels, probabilities), label_space)
    if not np.isfinite(value):
        raise UserError(f"tune.score: {metric.name} is not defined for the images of these folds; choose another score")
    return value


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else label(value)
