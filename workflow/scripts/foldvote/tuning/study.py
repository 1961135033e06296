"""A search as Optuna's study in a journal file: asked by several workers, any of which may be killed at any time.

Optuna has no heartbeat for a journal, so locks say who is alive: a worker holds one of its own while it works, and asks
for trials in turn, under another. Whoever has the turn can tell which running trials have lost their worker: those of
a worker whose lock is free, and those that bear no worker yet. Their values are put in the queue again.
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

from foldvote.config.recipe import Recipe
from foldvote.config.search_space import AS_SCORED, label, own_values, with_values
from foldvote.config.tuning import Tune
from foldvote.errors import UserError
from foldvote.io.files import canonical, sha256_bytes
from foldvote.runtime.job_log import log
from foldvote.runtime.locks import try_lock, turn
from foldvote.runtime.seeding import derive
from foldvote.tuning.samplers import make_pruner, make_sampler, propose

MOST_LIVES = 3  # a trial whose worker died so often is not tried again: it may be what kills it
FIRST_FAILURES = 5  # if so many fail before any is scored, the search ends: it is not the values that are wrong
_STALE_SECONDS = 30  # after which a lock on the journal is broken; it is held for one write

# Names of what a trial carries beside its values.
WORKER, FIRST, LIVES, REPEATS, AS_IT_STANDS, RESULT = "worker", "first", "lives", "repeats", "as_it_stands", "result"


@dataclass(frozen=True)
class SearchSpec:
    """What is searched, and all that the score of a trial depends on.

    Attributes:
        model: the model's name, which is part of every draw.
        recipe: its recipe, into which values are put.
        tune: how it is searched.
        folds: that a trial is trained and scored on, in this order.
        seed: of the run.
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
        """What two studies differ in if their scores cannot be compared: plain JSON values."""
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
        return -1 if self.tune.score == "log_loss" else 1

    @property
    def epochs(self) -> int:
        """The fewest epochs that a trial may have: as often in a fold it is compared with others."""
        searched = self.tune.space.get("epochs")
        return int(min(searched.ends())) if searched else self.recipe.epochs

    def recipe_of(self, values: Mapping[str, Any]) -> Recipe:
        """The recipe of a trial, scored on its last epoch.

        Raises:
            UserError: if these values do not go together.
        """
        try:
            return Recipe.model_validate(with_values(self.recipe, values) | AS_SCORED)
        except ValueError as error:
            raise UserError(f"these values do not go together: {' '.join(str(error).split())}") from error


@dataclass(frozen=True)
class Trial:
    """A trial that this worker has begun.

    Attributes:
        asked: as Optuna knows it.
        values: of the searched keys.
    """

    asked: optuna.Trial
    values: dict[str, Any]

    @property
    def number(self) -> int:
        """Its number in the study."""
        return self.asked.number

    @property
    def first(self) -> int:
        """The number under which these values were tried first: a repeated trial goes on where that one was."""
        return self.asked.user_attrs.get(FIRST, self.number)


def open_journal(path: Path) -> JournalStorage:
    """Open the journal, or begin one. A last line that a kill cut off is dropped: nobody had an answer to it.

    Raises:
        UserError: if the file holds something else.
    """
    path = path.resolve()  # the lock is a link to it, which leads nowhere from another folder
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
    """The study of this very search; a new one where anything that its scores depend on has changed.

    The first trial of a new study is the recipe as it stands, where that lies in the space.
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
        # What is done once may have been cut off by a kill, so it is done where it is missing.
        if "identity" not in study.user_attrs:
            study.set_user_attr("identity", search.identity)
            log(f"tune: study {search.name} is new{_why_new([*known.values()], search)}")
        if not study.get_trials(deepcopy=False):
            _enqueue_as_it_stands(study, search)
    return study


def begin_trial(study: optuna.Study, folder: Path, search: SearchSpec, worker: int) -> Trial | None:
    """Begin the next trial of a study; None when as many as wanted are done or under way.

    Args:
        study: from `begin_study`.
        folder: of the search, with its locks.
        search: what is searched.
        worker: number of this worker, whose lock it holds.

    Raises:
        UserError: if the first trials of the study all failed.
    """
    with turn(folder / "locks"):
        _rescue(study, folder, worker)
        trials = study.get_trials(deepcopy=False)
        _refuse_hopeless(trials)
        busy = [
            trial for trial in trials if trial.state in (TrialState.RUNNING, TrialState.COMPLETE, TrialState.PRUNED)
        ]
        if len(busy) >= search.tune.trials:
            return None
        # A sampler of its own for each trial, seeded by how many were proposed before: a search that was killed and
        # continued proposes what an undisturbed one does.
        proposed = sum(REPEATS not in trial.user_attrs for trial in trials)
        study.sampler = make_sampler(
            search.tune.sampler, derive(search.seed, "tune", proposed), alone=search.tune.workers == 1
        )
        asked = study.ask()
        asked.set_user_attr(WORKER, worker)
        return Trial(asked, propose(asked, search.tune.space))


def finished_duplicate(study: optuna.Study, trial: Trial) -> FrozenTrial | None:
    """A complete trial of the same values, which would be trained to the same score again."""
    done = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    return next((other for other in done if other.params == trial.asked.params), None)


def requeue(study: optuna.Study, trial: FrozenTrial, *, its_fault: bool) -> None:
    """End a trial that was interrupted, and put its values in the queue, to be tried again.

    Args:
        study: the trial's study.
        trial: a running one.
        its_fault: whether it may be the trial that its worker died of; after `MOST_LIVES` such deaths it is not tried
            again.
    """
    lives = trial.user_attrs.get(LIVES, 1) + its_fault
    queued = {other.user_attrs.get(REPEATS) for other in study.get_trials(deepcopy=False)}
    if lives <= MOST_LIVES and trial.number not in queued:
        kept = {FIRST: trial.user_attrs.get(FIRST, trial.number), REPEATS: trial.number, LIVES: lives}
        if trial.user_attrs.get(AS_IT_STANDS):
            kept[AS_IT_STANDS] = True
        values = trial.system_attrs.get("fixed_params", {}) | trial.params
        study.enqueue_trial(values, user_attrs=kept)
    study.tell(trial.number, state=TrialState.FAIL)


def worker_lock(folder: Path, worker: int) -> Path:
    """The folder whose lock a worker holds while it works."""
    return folder / "locks" / f"worker={worker}"


def result_of(trial: FrozenTrial) -> dict[str, Any]:
    """What its worker noted of a trial: `folds` (score of each), `epochs`, `seconds`, `device`, and `fault`, a text.

    Of a trial whose values were trained before, `same_as` is the number of that one.
    """
    return trial.user_attrs.get(RESULT, {})


def _rescue(study: optuna.Study, folder: Path, worker: int) -> None:
    """Give back the trials whose worker is gone. Under the turn, a trial without a worker is one that died asking."""
    for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
        whose = trial.user_attrs.get(WORKER)
        if whose in (None, worker) or _is_gone(folder, whose):
            log(f"tune: trial {trial.number} has lost its worker; its values are tried again")
            requeue(study, trial, its_fault=True)


def _is_gone(folder: Path, worker: int) -> bool:
    file = try_lock(worker_lock(folder, worker) / "lock")
    if file is not None:
        file.close()
    return file is not None


def _refuse_hopeless(trials: Sequence[FrozenTrial]) -> None:
    ended = [trial for trial in trials if trial.state in (TrialState.COMPLETE, TrialState.PRUNED)]
    faults = [result_of(trial).get("fault") for trial in ended]
    if len(faults) >= FIRST_FAILURES and all(faults):
        raise UserError(f"tune: all of the first {len(faults)} trials failed; the last one: {faults[-1]}")


def _enqueue_as_it_stands(study: optuna.Study, search: SearchSpec) -> None:
    values = own_values(search.recipe, search.tune.space)
    if values is None:
        log("tune: the recipe as it stands lies outside the space, so it is no trial")
        return
    known = {key: value if search.tune.space[key].choice is None else label(value) for key, value in values.items()}
    study.enqueue_trial(known, user_attrs={AS_IT_STANDS: True})


def _why_new(others: Sequence[Any], search: SearchSpec) -> str:
    """What differs from the newest study of before."""
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
