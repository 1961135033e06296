"""The main metric of a configuration, and the scores that follow it."""

from pathlib import Path

import numpy as np
import pytest

from foldvote.config.experiment import check_config
from foldvote.config.metric_names import metric_fault
from foldvote.data.label_space import LabelSpace
from foldvote.ensemble.leaderboard import leaderboard_columns
from foldvote.ensemble.row_scores import score_with_intervals
from foldvote.ensemble.selection import EvaluationRows
from foldvote.errors import UserError
from foldvote.training.history import HISTORY

BASE = {"data": {"layout": "maskbase"}, "data_root": "data", "models": {"a": {"net": "resnet18"}}}


def test_the_main_metric_is_the_score_of_whatever_names_none() -> None:
    models = {
        "last": {"net": "resnet18"},
        "best": {"net": "resnet18", "epoch": "best"},
        "patient": {"net": "resnet18", "patience": 3},
        "plateau": {"net": "resnet18", "schedule": "plateau"},
        "own": {"net": "resnet18", "epoch": "best", "best_by": "loss"},
    }
    tune = {"space": {"lr": {"float": [1e-4, 1e-2]}}}
    config = check_config(BASE | {"metric": "roc_auc", "models": models, "tune": tune})
    # A recipe that chooses nothing by a score keeps its own, so that another metric retrains nothing.
    chosen = {name: recipe.best_by for name, recipe in config.models.items()}
    assert chosen == {"last": "macro_f1", "best": "roc_auc", "patient": "roc_auc", "plateau": "roc_auc", "own": "loss"}
    assert (config.vote.score, config.tune and config.tune.score) == ("roc_auc", "roc_auc")
    named = {"vote": {"score": "log_loss"}, "tune": tune | {"score": "accuracy"}}
    config = check_config(BASE | {"metric": "roc_auc"} | named)
    assert (config.vote.score, config.tune and config.tune.score) == ("log_loss", "accuracy")
    plain = check_config(BASE)
    assert (plain.metric, plain.vote.score, plain.models["a"].best_by) == ("macro_f1",) * 3


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({"metric": "rocauc"}, "metric: no metric 'rocauc'; did you mean 'roc_auc'"),
        ({"vote": {"score": "f_beta"}}, "vote.score: f_beta: f_beta needs a beta after a dash, such as f_beta-2"),
        ({"metric": "quadratic_kappa-agee"}, "metric: no factor 'agee'; did you mean 'age'?"),
        ({"vote": {"score": "mine.py"}}, "vote.score: a file of your own is named in `metric`"),
        ({"models": {"a": {"net": "resnet18", "best_by": "auc"}}}, "models.a.best_by: no metric 'auc'"),
    ],
)
def test_a_wrong_metric_is_told(values: dict, told: str) -> None:
    with pytest.raises(UserError) as error:
        check_config(BASE | values)
    assert any(told in line for line in error.value.faults), error.value.faults


@pytest.mark.parametrize("name", ["loss", "images", "classes", "intervals", "Temperature", "macro_f1_low", "Accuracy"])
def test_f175_a_file_with_a_name_that_the_results_have_already_is_refused(name: str) -> None:
    with pytest.raises(UserError) as error:
        check_config(BASE | {"metric": f"folder/{name}.py"})
    told = f"metric: the file folder/{name}.py: the results have a {name.lower()} of their own; name it my_{name}.py"
    assert any(told in line for line in error.value.faults), error.value.faults


def test_f175_no_key_or_column_beside_scores_is_left_for_a_file_of_ones_own() -> None:
    labels, groups = np.array([0, 1, 0, 1]), np.array([0, 1, 2, 3])
    rows, probabilities = EvaluationRows(labels, np.array([0, 0, 1, 1]), groups), np.eye(2)[labels]
    space = LabelSpace(("a", "b"))
    keys = {*score_with_intervals(rows, probabilities, space, None, 10, 1)}
    keys |= {"calibrated", "optimistic", "against_chosen", "factors_learnt", "images"}  # see row_scores
    wide = leaderboard_columns("macro_f1", has_reserve=False, has_answers=False, has_guests=True)
    keys |= {name for name in wide if not name.startswith("optimistic_")}
    keys |= {name.removeprefix("val_") for name in HISTORY.names if name.startswith("val_")}
    assert not [key for key in sorted(keys) if not metric_fault(f"{key}.py")]
    assert not metric_fault("cost.py") and not metric_fault("my_loss.py")


def test_a_metric_of_ones_own_is_a_file() -> None:
    config = check_config(BASE | {"metric": "folder/mine.py"})
    assert (config.metric_path, config.vote.score) == (Path("folder/mine.py"), "folder/mine.py")
    assert check_config(BASE).metric_path is None
