"""A worker of a search: a job that trains one trial after another until as many as wanted are done."""

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

from foldvote.batches import Draws
from foldvote.compute import Compute, choose_compute
from foldvote.console import say
from foldvote.course import Course
from foldvote.epochs import Trained
from foldvote.errors import Interrupted, Refusal
from foldvote.files import read_json, sha256_file, write_json
from foldvote.folds import read_folds
from foldvote.inference import predict_logits
from foldvote.jobs import Machine, SplitFiles
from foldvote.lessons import Lessons, make_lessons
from foldvote.locks import folder_lock
from foldvote.members import MemberInputs, assemble
from foldvote.metrics import accuracy, balanced_accuracy, log_loss, macro_f1
from foldvote.models import build_model
from foldvote.predictions import member_of
from foldvote.pseudo import PseudoInputs
from foldvote.recipes import Recipe
from foldvote.space import label
from foldvote.stopping import stop_on_signal
from foldvote.study import (
    RESULT,
    Search,
    Trial,
    begin_study,
    begin_trial,
    give_back,
    open_journal,
    result_of,
    twin_of,
    worker_lock,
)
from foldvote.training import fit
from foldvote.vote import softmax


@dataclass(frozen=True)
class SearchInputs:
    """What trials are trained from: more than one trial needs, as recipes differ.

    Attributes:
        split: classes and folds.
        pixels: packed training images, below folders `size=<HxW>/roi=<roi>`.
        pretrained: local weights files by what a recipe calls them.
        manifest: of the training images, where a recipe may treat labels by age.
        age_borders: borders of the age bands in years, where there are any.
        pseudo_pixels: packed test images, where a recipe may learn from them.
        pseudo: what models of a first round say of them, below folders `model=<m>/fold=<k>`.
    """

    split: SplitFiles
    pixels: Sequence[Path]
    pretrained: Mapping[str, Path] = field(default_factory=dict)
    manifest: Path | None = None
    age_borders: tuple[int, int] | None = None
    pseudo_pixels: Sequence[Path] = ()
    pseudo: Sequence[Path] = ()

    def of(self, recipe: Recipe, fold: int) -> MemberInputs:
        """What the member of a fold is trained from by a recipe."""
        keys = [(name, fold) for name in recipe.first_round]
        return MemberInputs(
            _packed(self.pixels, recipe),
            self.split,
            self.pretrained[recipe.pretrained] if recipe.pretrained else None,
            self.manifest,
            self.age_borders,
            PseudoInputs(
                _packed(self.pseudo_pixels, recipe), tuple(path for path in self.pseudo if member_of(path) in keys)
            )
            if keys
            else None,
        )


def work(
    search: Search,
    worker: int,
    folder: Path,
    inputs: SearchInputs,
    machine: Machine,
    code: str,
    done: Path,
) -> None:
    """Train trials until as many as wanted are done or under way, and say in a file which were this job's.

    Args:
        search: what is searched; its `origin` is set here.
        worker: number of this worker.
        folder: of the search.
        inputs: what trials are trained from.
        machine: what may be used.
        code: digest of the code.
        done: the JSON file.

    Raises:
        Refusal: if inputs do not belong together, another process works under this number, or the first trials all
            fail.
        Interrupted: when a signal asked to stop; what was begun is in the queue again, with its training state.
    """
    search = replace(search, origin=origin_of(inputs, code))
    numbers: list[int] = []
    with folder_lock(worker_lock(folder, worker), say), stop_on_signal() as stopping:
        study = begin_study(open_journal(folder / "journal.log"), folder, search)
        started, hours = time.monotonic(), search.tune.timeout_hours
        while not stopping.is_set() and (trial := begin_trial(study, folder, search, worker)):
            numbers.append(trial.number)
            _try(trial, study, search, folder, partial(_score, inputs=inputs, machine=machine, stopping=stopping))
            if hours is not None and time.monotonic() - started > hours * 3600:
                say(f"tune: worker {worker} begins no more trials after {hours:g} hours")
                break
        if stopping.is_set():
            raise Interrupted(f"tune: worker {worker} stopped as asked; the same command goes on from here")
    write_json(done, {"study": search.name, "worker": worker, "trials": numbers})


def origin_of(inputs: SearchInputs, code: str) -> dict[str, Any]:
    """Digests of all that trials are trained from: scores are compared only where these are equal."""
    _, digest = read_folds(inputs.split.folds, inputs.split.certificate)
    return {
        "code": code,
        "split_sha256": digest,
        "data_sha256": read_json(inputs.split.certificate)["data_sha256"],
        "age_borders": list(inputs.age_borders or ()),
        "pretrained_sha256": {name: sha256_file(path) for name, path in sorted(inputs.pretrained.items())},
        "pseudo_sha256": [sha256_file(path) for path in sorted(inputs.pseudo)],
    }


def _try(trial: Trial, study: optuna.Study, search: Search, folder: Path, train: Callable[..., float | None]) -> None:
    """Train one trial and tell what came of it."""
    values = ", ".join(f"{key} {_short(value)}" for key, value in trial.values.items())
    if twin := twin_of(study, trial):
        say(f"tune: trial {trial.number}: has the values of trial {twin.number}, and so its score")
        trial.asked.set_user_attr(RESULT, result_of(twin) | {"epochs": 0, "seconds": 0.0, "same_as": twin.number})
        study.tell(trial.asked, twin.value)
        return
    say(f"tune: trial {trial.number}: {values}")
    resume = folder / "resume" / search.name / f"trial={trial.first}"
    course, score, fault = Course(trial.asked, search), None, ""
    try:
        score = train(trial, search, course, resume)
    except _Failed as failure:
        fault = str(failure)
    except (Interrupted, Refusal) as stop:
        give_back(study, study.get_trials(deepcopy=False)[trial.number], its_fault=False)
        if isinstance(stop, Refusal):
            raise
        raise Interrupted(f"tune: trial {trial.number} stopped as asked; the same command goes on from there") from stop
    trial.asked.set_user_attr(RESULT, course.result | ({"fault": fault} if fault else {}))
    # A trial that failed of its values is told as pruned, from which TPE learns to keep away; a failed one it ignores.
    study.tell(trial.asked, score, state=TrialState.COMPLETE if score is not None else TrialState.PRUNED)
    shutil.rmtree(resume, ignore_errors=True)
    outcome = f"failed: {fault}" if fault else f"{search.tune.score} {score:.4f}" if score is not None else "pruned"
    say(f"tune: trial {trial.number}: {outcome}")


class _Failed(Exception):
    """The values of a trial cannot be trained; the text says why."""


@contextmanager
def _values_at_fault() -> Iterator[None]:
    """A refusal in this block is the trial's, not the job's."""
    try:
        yield
    except Refusal as refusal:
        raise _Failed("; ".join(refusal.faults)) from refusal


def _score(
    trial: Trial,
    search: Search,
    course: Course,
    resume: Path,
    inputs: SearchInputs,
    machine: Machine,
    stopping: Event,
) -> float | None:
    """Train a trial's folds one after another: the score of all their out-of-fold predictions; None when pruned."""
    with _values_at_fault():
        recipe = search.recipe_of(trial.values)
        compute = choose_compute(recipe, machine.gpus, machine.threads)
    parts = []
    for place, fold in enumerate(search.folds):
        if stopping.is_set():
            raise Interrupted
        own = inputs.of(recipe, fold)
        lessons = make_lessons(recipe, fold, own.pixels, own.split, own.manifest, own.age_borders, own.pseudo)
        member, _ = assemble(Draws(search.seed, search.model, fold), recipe, search.origin["code"], own, lessons)
        with _values_at_fault():
            trained = fit(
                replace(member, title=f"trial {trial.number} fold {fold}"),
                compute,
                resume / f"fold={fold}",
                machine.workers(compute),
                machine.runtime,
                also_enough=partial(course.judged, place, recipe),
            )
        if recipe.compile:
            torch.compiler.reset()  # what is compiled for one trial only counts against the next
        course.close(place, recipe, trained.history, compute.name)
        if course.pruned:
            return None
        probabilities = _out_of_fold(trained, recipe, lessons, own, search.views, compute, machine)
        parts.append(lessons.validation[["image_id", "label"]].assign(p=list(probabilities)))
        course.note(fold, score_of(search.tune.score, *pooled(parts[-1:])))
    return score_of(search.tune.score, *pooled(parts))


def _out_of_fold(
    trained: Trained,
    recipe: Recipe,
    lessons: Lessons,
    inputs: MemberInputs,
    views: Sequence[str | dict[str, Any]],
    compute: Compute,
    machine: Machine,
) -> np.ndarray:
    """Probabilities of a fold's validation images, the mean over the views: float64 (images, classes)."""
    model = build_model(recipe, lessons.scheme, seed=0, age_borders=inputs.age_borders)
    model.load_state_dict(trained.chosen)
    rows = lessons.pixels.rows(lessons.validation["image_id"].tolist())
    logits = predict_logits(compute.place(model), lessons.pixels, rows, views, compute, machine.runtime.predict_batch)
    return np.mean([softmax(own) for own in logits.values()], axis=0)


def _packed(paths: Sequence[Path], recipe: Recipe) -> Path:
    """The packed images of a recipe's size and region."""
    wanted = (f"size={recipe.size}", f"roi={recipe.roi}")
    found = [path for path in paths if path.parts[-3:-1] == wanted]
    if not found:
        raise Refusal(f"no images are packed at {' and '.join(wanted)}; run the same command again")
    return found[0]


def pooled(parts: Sequence[pd.DataFrame]) -> tuple[np.ndarray, np.ndarray]:
    """Out-of-fold predictions of several folds as one: an image of several repeats has the mean of its predictions.

    Args:
        parts: columns image_id, label and p, an array (classes,) an image.

    Returns:
        Labels, int64 (images,), and probabilities, float64 (images, classes).
    """
    rows = pd.concat(parts, ignore_index=True)
    ids, first, places = np.unique(rows["image_id"].to_numpy(str), return_index=True, return_inverse=True)
    summed = np.zeros((len(ids), len(rows["p"].iloc[0])))
    np.add.at(summed, places, np.stack(rows["p"].tolist()))
    return rows["label"].to_numpy(np.int64)[first], summed / np.bincount(places)[:, None]


def score_of(name: str, labels: np.ndarray, probabilities: np.ndarray) -> float:
    """A score by its name."""
    predicted, classes = probabilities.argmax(axis=1), probabilities.shape[1]
    match name:
        case "log_loss":
            return log_loss(labels, probabilities)
        case "accuracy":
            return accuracy(labels, predicted)
        case "balanced_accuracy":
            return balanced_accuracy(labels, predicted, classes)
        case _:
            return macro_f1(labels, predicted, classes)


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else label(value)
