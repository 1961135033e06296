"""A search as an Optuna study in a journal file, shared by several workers that may be killed at any time.

Optuna has no heartbeat for a journal, so locks tell which workers are alive: a worker holds a lock of its own while it
works, and takes a second lock, shared by all, while it asks for a trial. Under this lock it can tell which running
trials have lost their worker: those of a worker whose own lock is free, and those with no worker yet. Their values are
queued again.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import optuna
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend, JournalFileSymlinkLock
from optuna.trial import FrozenTrial, TrialState

from foldvote.config.metric_names import higher_is_better
from foldvote.config.recipe import Recipe
from foldvote.config.search_space import AS_SCORED, label, own_values, with_values
from foldvote.config.tuning import Random, Tune
from foldvote.errors import UserError
from foldvote.io.files import canonical, sha256_bytes
from foldvote.runtime.job_log import log
from foldvote.runtime.locks import try_lock, turn
from foldvote.runtime.seeding import derive
from foldvote.tuning.samplers import make_pruner, make_sampler, propose

MOST_ATTEMPTS = 3  # a trial whose worker died this often is not tried again, as the trial may be the cause
FIRST_FAILURES = 5  # if the first trials all fail, the search ends: the values are not the reason
_STALE_SECONDS = 30  # a lock on the journal that is older is removed; it is held during one write only

# Keys of the user attributes of a trial.
WORKER, FIRST, ATTEMPTS, REPEATS, AS_IT_STANDS, RESULT = "worker", "first", "lives", "repeats", "as_it_stands", "result"


@dataclass(frozen=True)
class SearchSpec:
    """A search, with everything that the score of a trial depends on.

    Attributes:
        model: the model's name, which is part of every seed.
        recipe: the model's recipe; a trial replaces the values of some keys.
        tune: the settings of the search.
        folds: the folds that a trial is trained and scored on, in this order.
        seed: the run's seed.
        views: test-time views of the predictions that are scored.
        origin: digests of code, split and data.
    """

    model: str
    recipe: Recipe
    tune: Tune
    folds: tuple[int, ...]
    seed: int
    views: Sequence[str | dict[str, Any]]
    origin: Mapping[str, Any] = field(default_factory=dict)

    @cached_property
    def identity(self) -> dict[str, Any]:
        """What must be equal for the scores of two studies to be comparable, as plain JSON values."""
        return {
            "model": self.model,
            "recipe": self.recipe.model_dump(mode="json"),
            "space": {key: dimension.model_dump(mode="json") for key, dimension in self.tune.space.items()},
            "folds": list(self.folds),
            "score": self.tune.score,
            "seed": self.seed,
            "views": list(self.views),
            **self.origin,
        }

    @property
    def name(self) -> str:
        """The study's name: the model and a digest of the identity."""
        return f"{self.model}-{sha256_bytes(canonical(self.identity).encode())[:12]}"

    @property
    def sign(self) -> int:
        """1 where a higher score is better, -1 where a lower one is."""
        return 1 if higher_is_better(self.tune.score) else -1

    @property
    def epochs(self) -> int:
        """The smallest number of epochs of a trial, which is how often per fold it is compared with other trials."""
        searched = self.tune.space.get("epochs")
        return int(min(searched.ends())) if searched else self.recipe.epochs

    def recipe_of(self, values: Mapping[str, Any]) -> Recipe:
        """The recipe of a trial, which is scored after its last epoch.

        Args:
            values: the trial's values by key.

        Raises:
            UserError: if these values contradict each other.
        """
        try:
            return Recipe.model_validate(with_values(self.recipe, values) | AS_SCORED)
        except ValueError as error:
            raise UserError(f"these values do not go together: {' '.join(str(error).split())}") from error


@dataclass(frozen=True)
class Trial:
    """A trial that this worker has started.

    Attributes:
        asked: the trial as an object of Optuna.
        values: the values of the searched keys.
    """

    asked: optuna.Trial
    values: dict[str, Any]

    @property
    def number(self) -> int:
        """Its number in the study."""
        return self.asked.number

    @property
    def first(self) -> int:
        """The number of the first trial with these values: a repeated trial resumes the training of that one."""
        return self.asked.user_attrs.get(FIRST, self.number)


def open_journal(path: Path) -> JournalStorage:
    """Open the journal, or start a new one. An incomplete last line, left by a kill, is dropped.

    Args:
        path: the journal file.

    Raises:
        UserError: if the file is not a journal of Optuna.
    """
    path = path.resolve()  # the lock is a symlink to it, which must not depend on the current folder
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = JournalFileSymlinkLock(str(path), grace_period=_STALE_SECONDS)
    backend = JournalFileBackend(str(path), lock_obj=lock)
    lock.acquire()
    try:
        _drop_cut_line(path)
    finally:
        lock.release()
    try:
        return JournalStorage(backend)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{path}: is no journal of Optuna ({error}); delete it to begin anew") from error


def begin_study(storage: JournalStorage, folder: Path, search: SearchSpec) -> optuna.Study:
    """Open the study of this search, or create it: a change of anything that scores depend on gives a new study.

    The first trial of a new study is the unchanged recipe, if the search space contains it.

    Args:
        storage: the journal.
        folder: the folder of the search, with its locks.
        search: the search.
    """
    with turn(folder / "locks"):
        known = {study.study_name: study for study in optuna.get_all_study_summaries(storage, include_best_trial=False)}
        study = optuna.create_study(
            storage=storage,
            study_name=search.name,
            direction="maximize" if search.sign > 0 else "minimize",
            pruner=make_pruner(search.tune.pruner, search.epochs * len(search.folds)),
            load_if_exists=True,
        )
        # These two steps may have been interrupted by a kill, so each is done if its result is missing.
        if "identity" not in study.user_attrs:
            study.set_user_attr("identity", search.identity)
            log(f"tune: study {search.name} is new{_why_new([*known.values()], search)}")
        if not study.get_trials(deepcopy=False):
            _enqueue_unchanged_recipe(study, search)
    return study


def begin_trial(study: optuna.Study, folder: Path, search: SearchSpec, worker: int) -> Trial | None:
    """Start the next trial of a study; None if enough trials are finished or running.

    Args:
        study: the result of `begin_study`.
        folder: the folder of the search, with its locks.
        search: the search.
        worker: number of this worker, which holds its own lock.

    Raises:
        UserError: if the first trials of the study all failed.
    """
    with turn(folder / "locks"):
        _requeue_abandoned(study, folder, worker)
        trials = study.get_trials(deepcopy=False)
        _check_first_failures(trials)
        counted = [
            trial for trial in trials if trial.state in (TrialState.RUNNING, TrialState.COMPLETE, TrialState.PRUNED)
        ]
        if len(counted) >= search.tune.trials:
            return None
        # Each trial has a new sampler, seeded with the number of earlier proposals: a search that was killed and
        # continued proposes the same values as an uninterrupted one.
        proposed = sum(REPEATS not in trial.user_attrs for trial in trials)
        # A queued trial has its values already, so it must take no point of a sequence.
        queued = any(trial.state == TrialState.WAITING for trial in trials)
        study.sampler = make_sampler(
            Random(name="random") if queued else search.tune.sampler,
            derive(search.seed, "tune", proposed),
            derive(search.seed, "tune"),
            alone=search.tune.workers == 1,
        )
        asked = study.ask()
        asked.set_user_attr(WORKER, worker)
        return Trial(asked, propose(asked, search.tune.space))


def finished_duplicate(study: optuna.Study, trial: Trial) -> FrozenTrial | None:
    """A complete trial with the same values, whose score this trial would repeat; None if there is none.

    Args:
        study: the study.
        trial: the trial that was started.
    """
    done = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    return next((other for other in done if other.params == trial.asked.params), None)


def requeue(study: optuna.Study, trial: FrozenTrial, *, its_fault: bool) -> None:
    """End a trial that was interrupted, and queue its values for another attempt.

    Args:
        study: the trial's study.
        trial: a running trial.
        its_fault: whether the trial may be the reason why its worker died; after `MOST_ATTEMPTS` such deaths it is not
            queued again.
    """
    attempts = trial.user_attrs.get(ATTEMPTS, 1) + its_fault
    queued = {other.user_attrs.get(REPEATS) for other in study.get_trials(deepcopy=False)}
    if attempts <= MOST_ATTEMPTS and trial.number not in queued:
        attributes = {FIRST: trial.user_attrs.get(FIRST, trial.number), REPEATS: trial.number, ATTEMPTS: attempts}
        if trial.user_attrs.get(AS_IT_STANDS):
            attributes[AS_IT_STANDS] = True
        values = trial.system_attrs.get("fixed_params", {}) | trial.params
        study.enqueue_trial(values, user_attrs=attributes)
    study.tell(trial.number, state=TrialState.FAIL)


def worker_lock(folder: Path, worker: int) -> Path:
    """The folder whose lock a worker holds while it works.

    Args:
        folder: the folder of the search.
        worker: number of the worker.
    """
    return folder / "locks" / f"worker={worker}"


def result_of(trial: FrozenTrial) -> dict[str, Any]:
    """What the worker recorded about a trial: `folds` (score of each), `epochs`, `seconds`, `device`, `fault` (text).

    If the same values were trained before, `same_as` is the number of that trial.
    """
    return trial.user_attrs.get(RESULT, {})


def _requeue_abandoned(study: optuna.Study, folder: Path, worker: int) -> None:
    """Requeue the trials whose worker is gone.

    The caller holds the shared lock, so a running trial without a worker belongs to one that died while asking.
    """
    for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
        owner = trial.user_attrs.get(WORKER)
        if owner in (None, worker) or _is_gone(folder, owner):
            log(f"tune: trial {trial.number} has lost its worker; its values are tried again")
            requeue(study, trial, its_fault=True)


def _is_gone(folder: Path, worker: int) -> bool:
    file = try_lock(worker_lock(folder, worker) / "lock")
    if file is not None:
        file.close()
    return file is not None


def _check_first_failures(trials: Sequence[FrozenTrial]) -> None:
    ended = [trial for trial in trials if trial.state in (TrialState.COMPLETE, TrialState.PRUNED)]
    faults = [result_of(trial).get("fault") for trial in ended]
    if len(faults) >= FIRST_FAILURES and all(faults):
        raise UserError(f"tune: all of the first {len(faults)} trials failed; the last one: {faults[-1]}")


def _enqueue_unchanged_recipe(study: optuna.Study, search: SearchSpec) -> None:
    values = own_values(search.recipe, search.tune.space)
    if values is None:
        log("tune: the recipe as it stands lies outside the space, so it is no trial")
        return
    known = {key: value if search.tune.space[key].choice is None else label(value) for key, value in values.items()}
    study.enqueue_trial(known, user_attrs={AS_IT_STANDS: True})


def _why_new(others: Sequence[Any], search: SearchSpec) -> str:
    """What has changed since the newest earlier study, for the log."""
    before = [study.user_attrs["identity"] for study in others if "identity" in study.user_attrs]
    if not before:
        return ""
    other = [name for name, value in search.identity.items() if before[-1].get(name) != value]
    return f": that of before had other {', '.join(name.removesuffix('_sha256') for name in other)}"


def _drop_cut_line(path: Path) -> None:
    with path.open("rb+") as file:
        content = file.read()
        whole = content.rfind(b"\n") + 1
        if whole < len(content):
            log(f"warning: {path}: its last line was cut off by a kill: dropped")
            file.truncate(whole)
