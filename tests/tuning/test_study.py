"""A study in a journal: asked by several workers, any of which may die at any time."""

from collections import Counter
from dataclasses import replace
from pathlib import Path

import optuna
import pandas as pd
import pytest
from optuna.trial import TrialState

from foldvote.config.recipe import Recipe
from foldvote.config.tuning import Tune
from foldvote.errors import UserError
from foldvote.runtime.locks import try_lock
from foldvote.tuning import study as study_module
from foldvote.tuning.pruning import TrialPruner
from foldvote.tuning.samplers import make_pruner
from foldvote.tuning.study import (
    RESULT,
    WORKER,
    SearchSpec,
    begin_study,
    begin_trial,
    open_journal,
    requeue,
    worker_lock,
)

RECIPE = Recipe.model_validate({"net": "test_resnet", "size": "32x24", "epochs": 4})
SPACE = {
    "lr": {"float": [1e-4, 1e-1], "log": True},
    "optimizer": {"choice": ["adamw", "sgd"]},
    "optimizer_args.momentum": {"float": [0.5, 0.9], "when": {"optimizer": "sgd"}},
    "batch_size": {"int": [8, 64], "step": 8},
}


def search(**changes: object) -> SearchSpec:
    tune = Tune.model_validate({"trials": 6, "pruner": "none", "space": SPACE, **changes})
    return SearchSpec("tiny", RECIPE, tune, (0, 1), 1, ["identity"], {"code": "a"})


def begin(folder: Path, wanted: SearchSpec) -> optuna.Study:
    return begin_study(open_journal(folder / "journal.log"), folder, wanted)


def run_all(folder: Path, wanted: SearchSpec, worker: int = 0) -> list[dict]:
    """Finish all trials that are left, and give the values of each."""
    study, found = begin(folder, wanted), []
    while trial := begin_trial(study, folder, wanted, worker):
        found.append(trial.values)
        study.tell(trial.asked, 1 - abs(trial.values["lr"] - 0.003))
    return found


def states(folder: Path, wanted: SearchSpec) -> Counter:
    return Counter(trial.state.name for trial in begin(folder, wanted).trials)


def test_trials_are_counted_over_all_runs_and_the_first_is_the_recipe_as_it_stands(tmp_path: Path) -> None:
    found = run_all(tmp_path, search(trials=4))
    assert found[0] == {"lr": 1e-3, "optimizer": "adamw", "batch_size": 64}
    assert len(found) == 4 and run_all(tmp_path, search(trials=4)) == []
    assert len(run_all(tmp_path, search(trials=6, workers=3))) == 2  # the same study goes on
    assert states(tmp_path, search()) == {"COMPLETE": 6}
    for values in found:
        assert ("optimizer_args.momentum" in values) == (values["optimizer"] == "sgd")
        assert values["batch_size"] % 8 == 0 and 1e-4 <= values["lr"] <= 1e-1


def test_another_space_score_split_or_code_is_another_study_and_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    names = [begin(tmp_path, search()).study_name, begin(tmp_path, search(sampler="random")).study_name]
    assert len(set(names)) == 1
    others = [search(score="log_loss"), search(space={"lr": SPACE["lr"]}), replace(search(), folds=(0,))]
    others += [replace(search(), seed=2), replace(search(), origin={"code": "b"})]
    assert len({begin(tmp_path, other).study_name for other in others} | set(names)) == 6
    assert "that of before had other score" in capsys.readouterr().err


@pytest.mark.parametrize("sampler", ["tpe", "random", "qmc"])
def test_a_search_that_was_killed_and_continued_proposes_what_an_undisturbed_one_does(
    tmp_path: Path, sampler: str
) -> None:
    wanted = search(trials=14, sampler=sampler)
    undisturbed = run_all(tmp_path / "a", wanted)
    folder = tmp_path / "b"
    study, found = begin(folder, wanted), []
    for number in range(9):
        trial = begin_trial(study, folder, wanted, worker=0)
        if number in (3, 8):  # the worker dies in the middle, and another process begins
            study = begin(folder, wanted)
            continue
        found.append(trial.values)
        study.tell(trial.asked, 1 - abs(trial.values["lr"] - 0.003))
    found += run_all(folder, wanted)
    assert found == undisturbed
    assert states(folder, wanted) == {"COMPLETE": 14, "FAIL": 2}


def test_f50_trials_of_a_dead_worker_are_queued_again_and_those_of_a_living_one_are_not(tmp_path: Path) -> None:
    wanted = search(trials=4, workers=2)
    study = begin(tmp_path, wanted)
    lost = begin_trial(study, tmp_path, wanted, worker=7)  # of an earlier run with more workers: nobody has its lock
    alive = try_lock(worker_lock(tmp_path, 1) / "lock")
    kept = begin_trial(study, tmp_path, wanted, worker=1)
    assert kept.values == lost.values and kept.first == lost.number  # rescued at once, as worker 7 is gone
    study.ask()  # died before it could say whose it is
    again = begin_trial(study, tmp_path, wanted, worker=0)
    by_state = {trial.number: trial.state for trial in study.trials}
    assert by_state[lost.number] == by_state[2] == TrialState.FAIL
    assert by_state[kept.number] == by_state[again.number] == TrialState.RUNNING
    assert study.trials[again.number].user_attrs["repeats"] == 2
    alive.close()


def test_what_kills_its_worker_again_and_again_is_let_go(tmp_path: Path) -> None:
    wanted = search(trials=2)
    study = begin(tmp_path, wanted)
    values = [begin_trial(study, tmp_path, wanted, worker=0).values for _ in range(4)]
    assert values[0] == values[1] == values[2] != values[3]
    assert states(tmp_path, wanted) == {"FAIL": 3, "RUNNING": 1}


def test_a_trial_that_was_stopped_as_asked_is_queued_once_and_as_often_as_need_be(tmp_path: Path) -> None:
    wanted = search(trials=2)
    study = begin(tmp_path, wanted)
    for _ in range(5):
        trial = begin_trial(study, tmp_path, wanted, worker=0)
        assert trial.first == 0
        requeue(study, study.trials[trial.number], its_fault=False)
    assert states(tmp_path, wanted) == {"FAIL": 5, "WAITING": 1}


def test_two_workers_begin_no_more_trials_than_wanted(tmp_path: Path) -> None:
    wanted = search(trials=3, workers=2)
    study = begin(tmp_path, wanted)
    locks = [try_lock(worker_lock(tmp_path, worker) / "lock") for worker in (0, 1)]
    begun = [begin_trial(study, tmp_path, wanted, worker) for worker in (0, 1)]
    study.tell(begun[0].asked, 0.5)
    assert begin_trial(study, tmp_path, wanted, worker=0) is not None
    assert [trial.user_attrs[WORKER] for trial in study.trials] == [0, 1, 0]
    locks[1].close()  # worker 1 dies, and its trial is tried again by who is left
    study.tell(study.trials[2].number, 0.5)
    assert begin_trial(study, tmp_path, wanted, worker=0).first == 1
    locks[0].close()


def test_a_search_in_which_nothing_works_ends(tmp_path: Path) -> None:
    wanted = search(trials=50)
    study = begin(tmp_path, wanted)
    with pytest.raises(UserError, match="all of the first 5 trials failed; the last one: too big"):
        while trial := begin_trial(study, tmp_path, wanted, worker=0):
            trial.asked.set_user_attr(RESULT, {"fault": "too big"})
            study.tell(trial.asked, state=TrialState.PRUNED)
    assert len(study.trials) == 5


def test_f37_a_line_that_a_kill_cut_off_is_dropped_and_the_journal_goes_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run_all(tmp_path, search(trials=3))
    with (tmp_path / "journal.log").open("ab") as file:
        file.write(b'{"op_code":4,"worker_id":"x","study_id":0,"date')
    assert len(run_all(tmp_path, search(trials=5))) == 2
    assert "was cut off by a kill: dropped" in capsys.readouterr().err
    (tmp_path / "journal.log").write_bytes(b"not a journal\n" * 3)
    with pytest.raises(UserError, match="is no journal of Optuna"):
        begin(tmp_path, search())


def test_f37_the_journals_lock_of_a_process_that_was_killed_is_broken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # a lock by a relative path would be a link to nowhere, and hold for ever
    monkeypatch.setattr(study_module, "_STALE_SECONDS", 3)
    open_journal(Path("tune/journal.log"))
    (tmp_path / "tune/journal.log.lock").symlink_to(tmp_path / "tune/journal.log")
    assert len(run_all(Path("tune"), search(trials=1))) == 1


@pytest.mark.parametrize(
    "sampler", [{"name": "gp", "n_startup_trials": 2}, "qmc", {"name": "tpe", "multivariate": False}]
)
def test_every_sampler_keeps_to_the_space(tmp_path: Path, sampler: object) -> None:
    for values in run_all(tmp_path, search(trials=4, sampler=sampler)):
        assert 1e-4 <= values["lr"] <= 1e-1 and values["batch_size"] in range(8, 65, 8)


def test_f174_qmc_takes_one_point_after_another_of_one_sequence_over_all_jobs_and_kills(tmp_path: Path) -> None:
    space = {"lr": {"float": [0.0, 1.0]}, "drop_rate": {"float": [0.0, 0.99]}, "optimizer": SPACE["optimizer"]}
    for seed in range(3):
        wanted = replace(search(trials=33, sampler="qmc", space=space), seed=seed)
        folder, points = tmp_path / str(seed), []
        for number in range(35):  # each by a process of its own, as the sampler is made anew
            trial = begin_trial(begin(folder, wanted), folder, wanted, worker=0)
            if number in (5, 20):
                continue  # the worker dies, and its values are tried again
            points.append(trial.values)
            begin(folder, wanted).tell(trial.number, 0.5)
        sequence = points[1:]  # after the recipe as it stands
        for key, width in (("lr", 1.0), ("drop_rate", 0.99)):
            assert len({int(point[key] / width * 32) for point in sequence}) == 32  # a random search hits about 20
        assert {point["optimizer"] for point in sequence} == {"adamw", "sgd"}  # a name is drawn for each trial


@pytest.mark.parametrize("pruner", ["none", "median", "percentile", "successive_halving", "hyperband"])
def test_every_pruner_is_made(pruner: str) -> None:
    settings = search(pruner=pruner).tune.pruner
    assert isinstance(make_pruner(settings, 8), optuna.pruners.BasePruner)


# --- epochs and folds as steps


class Asked:
    """Notes what is reported, and is pruned at a step."""

    def __init__(self, pruned_at: int = -1) -> None:
        self.reported: dict[int, float] = {}
        self.pruned_at = pruned_at

    def report(self, value: float, step: int) -> None:
        assert step not in self.reported
        self.reported[step] = value

    def should_prune(self) -> bool:
        return max(self.reported) == self.pruned_at


def history(*scores: float) -> list[dict[str, float]]:
    return [{"val_macro_f1": score, "val_loss": 1 - score, "seconds": 1.0} for score in scores]


def through(pruner: TrialPruner, recipe: Recipe, scores: list[float], place: int) -> None:
    for epoch in range(1, len(scores) + 1):
        if pruner.report(place, recipe, history(*scores[:epoch])):
            break
    pruner.close(place, recipe, pd.DataFrame(history(*scores[:epoch])), "CPU")


def test_trials_of_few_and_many_epochs_meet_at_equal_shares_of_their_course() -> None:
    wanted = search(space={"epochs": {"int": [2, 8]}})
    few, many = Asked(), Asked()
    through(TrialPruner(few, wanted), RECIPE.model_copy(update={"epochs": 2}), [0.1, 0.2], 0)
    through(TrialPruner(many, wanted), RECIPE.model_copy(update={"epochs": 8}), [0.1 * n for n in range(8)], 0)
    assert few.reported == {1: 0.1, 2: 0.2}
    assert many.reported == pytest.approx({1: 0.3, 2: 0.7})


def test_folds_follow_one_another_as_means_and_later_ones_always_count_more() -> None:
    asked = Asked()
    pruner = TrialPruner(asked, search())
    through(pruner, RECIPE, [0.1, 0.5, 0.4, 0.8], 0)
    through(pruner, RECIPE, [0.2, 0.3, 0.3, 0.6], 1)
    assert [asked.reported[step] for step in (1, 2, 3, 4)] == [0.1, 0.5, 0.4, 0.8]
    assert [asked.reported[step] - 100 for step in (5, 6, 7, 8)] == pytest.approx([0.5, 0.55, 0.55, 0.7])
    assert pruner.result["epochs"] == 8 and pruner.result["seconds"] == 8.0
    loss = Asked()
    worse = TrialPruner(loss, search(score="log_loss"))
    through(worse, RECIPE, [0.1, 0.2, 0.3, 0.4], 0)
    through(worse, RECIPE, [0.1, 0.2, 0.3, 0.4], 1)
    assert max(loss.reported[step] for step in (5, 6, 7, 8)) < min(loss.reported[step] for step in (1, 2, 3, 4))


def test_f178_a_fold_without_a_defined_score_is_not_compared_and_counts_in_no_mean() -> None:
    asked = Asked(pruned_at=8)
    pruner = TrialPruner(asked, replace(search(), folds=(0, 1, 2)))
    for place, scores in enumerate(([0.1, 0.5, 0.4, 0.8], [float("nan")] * 4, [0.2, 0.4, 0.4, 0.6])):
        through(pruner, RECIPE, scores, place)
    assert {step: value - 200 * (step > 8) for step, value in asked.reported.items()} == pytest.approx(
        {1: 0.1, 2: 0.5, 3: 0.4, 4: 0.8, 9: 0.5, 10: 0.6, 11: 0.6, 12: 0.7}
    )
    assert not pruner.pruned and pruner.result["epochs"] == 12
    pruner.note(1, float("nan"))
    assert pruner.result["folds"] == {"1": None}


def test_a_trial_is_pruned_in_mid_fold_but_not_when_all_is_done() -> None:
    pruner = TrialPruner(Asked(pruned_at=2), search())
    through(pruner, RECIPE, [0.1, 0.1, 0.1, 0.1], 0)
    assert pruner.pruned and pruner.result["epochs"] == 2
    done = TrialPruner(Asked(pruned_at=8), search())
    for place in (0, 1):
        through(done, RECIPE, [0.1, 0.1, 0.1, 0.1], place)
    assert not done.pruned and done.result["epochs"] == 8


def test_what_a_resumed_fold_had_done_before_is_reported_as_well() -> None:
    asked = Asked()
    pruner = TrialPruner(asked, search())
    pruner.report(0, RECIPE, history(0.1, 0.2, 0.3))
    assert list(asked.reported) == [1, 2, 3]
    pruner.report(0, RECIPE, history(0.1, 0.2, 0.3, 0.4))
    assert list(asked.reported) == [1, 2, 3, 4]
