"""The loop: whatever the recipe, a run that was cut off ends with the bytes of an undisturbed one."""

import multiprocessing
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

import foldvote.training.loop
from foldvote.data.label_space import factor_label_space, write_label_space
from foldvote.errors import UserError
from foldvote.io.files import read_json
from foldvote.io.parquet import read_table
from foldvote.models.factory import build_model
from foldvote.training.history import HISTORY, read_history
from foldvote.training.loop import Trainer
from support.tiny_member import LABEL_SPACE, Tiny, make_tiny, recipe
from support.tiny_training import train

STEPS = 4  # of an epoch
RECIPES: dict[str, dict[str, object]] = {
    "accumulate": {"accumulate": 4},
    "ema": {"ema": 0.9},
    "swa": {"swa": 0.5, "epochs": 4},
    "soup": {"soup": 2, "epochs": 3},
    "mixup": {"mix": [{"name": "mixup", "alpha": 0.4, "p": 0.5}, {"name": "cutmix", "p": 0.5}]},
    "half_face": {"mix": "half_face", "augment": "heavy"},
    "factored": {"heads": "factored", "dropout_samples": 3},
    "ordinal": {"heads": {"hue": "ordinal"}},
    "plateau": {"schedule": {"name": "plateau", "patience": 1}, "epochs": 4, "best_by": "loss", "patience": 9},
    "losses": {"loss": ["focal", {"name": "soft_f1", "weight": 0.5}], "class_weights": "effective"},
    "sampler": {"sampler": {"by": "class"}, "optimizer": "lion", "schedule": "one_cycle"},
    "momentum": {"optimizer": "sgd", "optimizer_args": {"momentum": 0.9}, "schedule": "step", "layer_decay": 0.7},
    "frozen": {"freeze_epochs": 1, "pretrained": "given"},
    "bf16": {"precision": "bf16", "channels_last": True, "grad_checkpointing": True},
}


class CutOff(BaseException):
    """Ends a run at once, as a kill does: nothing catches it."""


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Tiny:
    made = make_tiny(tmp_path_factory.mktemp("tiny"))
    write_label_space(factor_label_space({"hue": LABEL_SPACE.classes}), made.split.classes)
    save_file(build_model(recipe(), LABEL_SPACE, 5).state_dict(), made.root / "given.safetensors")
    return made


def cut_after(saves: int, monkeypatch: pytest.MonkeyPatch) -> None:
    whole: Callable[..., None] = foldvote.training.loop.save_checkpoint
    left = [saves]

    def save(*arguments: Any) -> None:
        whole(*arguments)
        left[0] -= 1
        if not left[0]:
            raise CutOff

    monkeypatch.setattr(foldvote.training.loop, "save_checkpoint", save)


@pytest.mark.parametrize("name", RECIPES)
@pytest.mark.parametrize("workers", [0, 2])
def test_f36_a_run_cut_off_ends_as_if_it_had_not_been(
    tiny: Tiny, name: str, workers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    changes, place = RECIPES[name], f"{name}-{workers}"
    undisturbed = train(tiny, f"{place}-whole", changes, workers=1 if workers else 0)
    for saves in (2, STEPS + 1):
        with monkeypatch.context() as patch, pytest.raises(CutOff):
            cut_after(saves, patch)
            train(tiny, place, changes, workers)
    assert train(tiny, place, changes, workers) == undisturbed


def test_recipes_differ_in_what_they_learn(tiny: Tiny) -> None:
    digests = [train(tiny, f"differ-{name}", changes) for name, changes in RECIPES.items()]
    assert len(set(digests)) == len(RECIPES)


def test_compiled_training_goes_on_as_well(tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    changes = {"compile": True}
    undisturbed = train(tiny, "compiled-whole", changes)
    with monkeypatch.context() as patch, pytest.raises(CutOff):
        cut_after(3, patch)
        train(tiny, "compiled", changes)
    assert train(tiny, "compiled", changes) == undisturbed


def test_patience_and_minutes_end_a_run_early_and_say_why(tiny: Tiny, capfd: pytest.CaptureFixture[str]) -> None:
    train(tiny, "patient", {"epochs": 30, "lr": 1e-9, "patience": 2, "warmup_epochs": 0.0})
    assert len(read_table(tiny.files("patient").history, HISTORY)) < 30
    assert "patience 2" in capfd.readouterr().err
    train(tiny, "hurried", {"epochs": 30, "max_minutes": 1e-6})
    assert len(read_table(tiny.files("hurried").history, HISTORY)) == 1
    assert "max_minutes" in capfd.readouterr().err


def test_a_soup_names_its_epochs_and_its_own_score(tiny: Tiny) -> None:
    train(tiny, "soup-of-two", RECIPES["soup"])
    sidecar = read_json(tiny.files("soup-of-two").sidecar)
    history = read_table(tiny.files("soup-of-two").history, HISTORY).set_index("epoch")
    assert len(sidecar["epochs"]) == 2
    assert set(history["val_macro_f1"].nlargest(2)) == set(history.loc[sidecar["epochs"], "val_macro_f1"])
    assert 0 <= sidecar["val_macro_f1"] <= 1


@pytest.mark.parametrize(
    ("metric", "column"),
    [
        *((name, name) for name in ("macro_f1", "accuracy", "balanced_accuracy", "loss", "roc_auc", "f_beta-2")),
        *(("log_loss", "loss"), ("brier", "brier"), ("surest.py", "surest")),
    ],
)
def test_the_best_epoch_is_best_by_the_metric_asked_for(tiny: Tiny, metric: str, column: str) -> None:
    own = "def surest(labels, probabilities, names):\n    return probabilities.max(axis=1).mean()\n"
    (tiny.root / "surest.py").write_text(own, encoding="utf-8")
    train(tiny, f"by-{metric}", {"best_by": metric, "epochs": 4})
    history = read_history(tiny.files(f"by-{metric}").history)
    scores = history[f"val_{column}"]
    lower = column in ("loss", "brier")
    assert scores.nunique() > 1 or column not in ("loss", "roc_auc", "brier", "surest")
    assert scores[history["best"]].item() == (scores.min() if lower else scores.max())
    assert read_json(tiny.files(f"by-{metric}").sidecar)[f"val_{column}"] == pytest.approx(
        scores[history["best"]].item()
    )


def test_a_metric_that_no_epoch_has_leaves_the_column_empty_and_keeps_the_first(tiny: Tiny) -> None:
    train(tiny, "undefined", {"best_by": "quadratic_kappa-age"})
    history = read_history(tiny.files("undefined").history)
    assert history["val_quadratic_kappa-age"].isna().all() and len(history) == 2
    assert read_json(tiny.files("undefined").sidecar)["val_quadratic_kappa-age"] is None


def test_f42_the_batches_of_losses_that_are_not_finite_are_kept(tiny: Tiny) -> None:
    with pytest.raises(UserError, match="no longer finite from epoch"):
        train(tiny, "diverged", {"lr": 100.0, "clip_norm": None, "epochs": 30, "optimizer": "sgd"})
    left: Path = tiny.resume / "diverged" / "not-finite.json"
    first = read_json(left)[0]
    assert set(first) == {"epoch", "step", "image_ids"}
    assert len(first["image_ids"]) == 8


def test_f44_a_loader_process_that_dies_is_told_and_the_run_goes_on_later(
    tiny: Tiny, monkeypatch: pytest.MonkeyPatch
) -> None:
    changes = {"epochs": 3, "batch_size": 2}
    undisturbed = train(tiny, "alive", changes)

    def train_step(trainer: Trainer, images: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        if trainer.steps_done == 2:
            for child in multiprocessing.active_children():
                os.kill(child.pid, signal.SIGKILL)
        return whole(trainer, images, targets)

    whole = Trainer.train_step
    with monkeypatch.context() as patch, pytest.raises(UserError, match="a process that loads images died"):
        patch.setattr(Trainer, "train_step", train_step)
        train(tiny, "orphaned", changes, workers=1)
    assert train(tiny, "orphaned", changes) == undisturbed
