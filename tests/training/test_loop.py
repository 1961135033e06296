"""The loop: whatever the recipe, a run that was cut off ends with the bytes of an undisturbed one."""

import math
import os
import signal
import time
from collections.abc import Callable, Iterable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

import foldvote.training.loop
import foldvote.training.step
from foldvote.config.runtime import Runtime
from foldvote.data.label_space import factor_label_space, write_label_space
from foldvote.errors import UserError
from foldvote.io.files import read_json
from foldvote.io.parquet import read_table
from foldvote.models.factory import build_model
from foldvote.runtime.device import Device
from foldvote.runtime.seeding import MemberSeeds
from foldvote.training.history import HISTORY, read_history
from foldvote.training.loop import Trainer
from foldvote.training.state import build_spec
from foldvote.training.training_set import MemberInputs
from foldvote.training.weight_averaging import recompute_batchnorm
from support.tiny_member import LABEL_SPACE, Tiny, make_tiny, recipe, with_metadata, write_manifest
from support.tiny_training import teach, train

STEPS = 4  # of an epoch
RECIPES: dict[str, dict[str, object]] = {
    "accumulate": {"accumulate": 4},
    "ema": {"ema": 0.9},
    "swa": {"swa": 0.5, "epochs": 4},
    "soup": {"soup": 2, "epochs": 3},
    "swa_drop_path": {"swa": 0.5, "epochs": 4, "net": "test_efficientnet", "drop_path": 0.3},
    "soup_drop_path": {"soup": 2, "epochs": 3, "net": "test_efficientnet", "drop_path": 0.3, "accumulate": 2},
    "mixup": {"mix": [{"name": "mixup", "alpha": 0.4, "p": 0.5}, {"name": "cutmix", "p": 0.5}]},
    "half_face": {"mix": "half_face", "augment": "heavy"},
    "factored": {"heads": "factored", "dropout_samples": 3},
    "ordinal": {"heads": {"hue": "ordinal"}},
    "plateau": {"schedule": {"name": "plateau", "patience": 1}, "epochs": 4, "best_by": "loss", "patience": 9},
    "losses": {"loss": ["focal", {"name": "soft_f1", "weight": 0.5}], "class_weights": "effective"},
    "sampler": {"sampler": {"by": "class"}, "optimizer": "lion", "schedule": "one_cycle"},
    "momentum": {"optimizer": "sgd", "optimizer_args": {"momentum": 0.9}, "schedule": "step", "layer_decay": 0.7},
    "frozen": {"freeze_epochs": 1, "pretrained": "given"},
    "distill": {"distill": {"models": ["tiny"]}, "mix": "mixup"},
    "mix_off": {"mix": "mixup", "mix_off_epochs": 1},
    "head_lr_factor": {"head_lr_factor": 10.0, "layer_decay": 0.7},
    "ema_warmup": {"ema": 0.9, "ema_warmup": "timm"},
    "sam": {"sam": 0.05, "accumulate": 2, "mix": "cutmix"},
    "auto_augment": {"augment": ["rand-m9-mstd0.5-inc1", {"TrivialAugmentWide": {}}, {"AugMix": {"p": 0.5}}]},
    "progressive": {"progressive": {"size": "16x12", "epochs": 1}, "mix": "half_face"},
    "drop_path_rising": {"net": "test_efficientnet", "drop_path": 0.5, "drop_path_schedule": "rising"},
    "metadata": {"metadata": True, "mix": "cutmix", "accumulate": 2, "heads": "factored", "ema": 0.9},
    "bf16": {"precision": "bf16", "channels_last": True, "grad_checkpointing": True},
    "group_shots": {"group_shots": 2},
    "consistency": {
        "group_shots": 4,
        "loss": ["cross_entropy", {"name": "consistency", "factors": ["hue"]}],
        "mix": {"name": "mixup", "p": 0.5},
    },
    "sup_con": {"loss": ["cross_entropy", {"name": "sup_con", "weight": 0.1}], "heads": "factored", "sam": 0.05},
    "partners_of_a_group": {"group_shots": 2, "mix": {"name": "half_face", "partner": "group"}},
    "on_device": {"augment_on": "device", "augment": ["light", {"rotate": 0.05}, {"erase": 0.3}], "mix": "mixup"},
}


class CutOff(BaseException):
    """Ends a run at once, as a kill does: nothing catches it."""


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Tiny:
    made = make_tiny(tmp_path_factory.mktemp("tiny"))
    write_manifest(with_metadata(read_table(made.manifest)), made.manifest)
    write_label_space(factor_label_space({"hue": LABEL_SPACE.classes}), made.split.classes)
    save_file(build_model(recipe(), LABEL_SPACE, 5).state_dict(), made.root / "given.safetensors")
    train(made, "teacher", {"epochs": 1})
    teach(made, "teacher")
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


@pytest.fixture(scope="module")
def undisturbed(tiny: Tiny) -> Callable[[str], str]:
    """The digest of a recipe's weights after a run without workers that nothing disturbed, trained once."""
    return cache(lambda name: train(tiny, f"{name}-whole", RECIPES[name]))


@pytest.mark.parametrize("name", RECIPES)
def test_f36_a_run_cut_off_ends_as_if_it_had_not_been(
    tiny: Tiny, undisturbed: Callable[[str], str], name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In its first epoch with workers, in the second without; it ends with workers."""
    for saves, workers in ((2, 2), (STEPS + 1, 0)):
        with monkeypatch.context() as patch, pytest.raises(CutOff):
            cut_after(saves, patch)
            train(tiny, name, RECIPES[name], workers)
    assert train(tiny, name, RECIPES[name], 2) == undisturbed(name)


@pytest.mark.parametrize("name", ["swa_drop_path", "soup_drop_path"])
def test_f36_averages_cut_off_after_the_last_step_end_as_if_they_had_not_been(
    tiny: Tiny, undisturbed: Callable[[str], str], name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    changes, place = RECIPES[name], f"{name}-last"
    with monkeypatch.context() as patch, pytest.raises(CutOff):
        cut_after(STEPS * int(str(changes["epochs"])), patch)
        train(tiny, place, changes)
    assert train(tiny, place, changes) == undisturbed(name)


@pytest.mark.parametrize("changes", [{"swa": 0.5, "epoch": "last"}, {"soup": 2}], ids=["swa", "soup"])
def test_averages_are_settled_over_batches_of_all_classes(
    tmp_path: Path, changes: dict, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, given = make_tiny(tmp_path, persons=24, by_class=True), []

    def note(model: torch.nn.Module, batches: Iterable[torch.Tensor], *more: Any) -> None:
        given[:] = batches
        recompute_batchnorm(model, given, *more)

    monkeypatch.setattr(foldvote.training.loop, "recompute_batchnorm", note)
    train(made, "drawn", changes)
    images = torch.cat(given).mean(dim=(2, 3))  # the mean colour of each image, which is its class
    assert len(images) == 64
    by_class = images[images.argmax(dim=1).argsort()]
    spread, of_classes = (rows.reshape(-1, 8, 3).mean(dim=1).std(dim=0).mean() for rows in (images, by_class))
    assert spread < of_classes / 2, (spread, of_classes)


def test_statistics_of_a_frozen_backbone_survive_its_averages(tiny: Tiny) -> None:
    frozen = {"freeze_epochs": 2, "pretrained": "given"}
    for name, changes in {"swa": {"swa": 0.0, "epoch": "last"}, "soup": {"soup": 2}}.items():
        train(tiny, f"frozen-{name}", frozen | changes)
        given, learnt = load_file(tiny.root / "given.safetensors"), load_file(tiny.files(f"frozen-{name}").weights)
        statistics = [tensor for tensor in given if "running_" in tensor]
        assert len(statistics) > 10 and all(torch.equal(given[one], learnt[one]) for one in statistics)


def test_the_last_epochs_have_no_mixes(tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mixed, whole = [], foldvote.training.step.mix_batch

    def note(*arguments: Any) -> Any:
        mixed.append(trainer.steps_done)
        return whole(*arguments)

    monkeypatch.setattr(foldvote.training.step, "mix_batch", note)
    trainer = trainer_of(tiny, tmp_path, mix="mixup", epochs=3, mix_off_epochs=2)
    trainer.fit()
    assert mixed == list(range(STEPS))


def test_recipes_differ_in_what_they_learn(undisturbed: Callable[[str], str]) -> None:
    assert len({undisturbed(name) for name in RECIPES}) == len(RECIPES)


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


def test_a_run_cut_off_after_the_epoch_that_stop_early_ends_trains_no_further(
    tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []

    def after_two(history: list[dict[str, Any]]) -> str:
        asked.append(len(history))
        return "planned" if len(history) >= 2 else ""

    spec = trainer_of(tiny, tmp_path, epochs=4, epoch="last").spec
    device, runtime = (
        Device(torch.device("cpu"), torch.float32, torch.contiguous_format),
        Runtime(checkpoint_minutes=1e-6),
    )
    for saves in (STEPS + 1, STEPS - 1):  # within the second epoch, and at its end
        trainer = Trainer(spec, device, tmp_path / "cut", runtime, 0, stop_early=after_two)
        with monkeypatch.context() as patch, pytest.raises(CutOff):
            cut_after(saves, patch)
            trainer.fit()
    resumed = Trainer(spec, device, tmp_path / "cut", runtime, 0, stop_early=after_two).fit()
    assert resumed.epochs == [2] and 0 not in asked


def test_a_soup_names_its_epochs_and_its_own_score(tiny: Tiny, undisturbed: Callable[[str], str]) -> None:
    undisturbed("soup")
    sidecar = read_json(tiny.files("soup-whole").sidecar)
    history = read_table(tiny.files("soup-whole").history, HISTORY).set_index("epoch")
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
    # Without batch normalisation, which keeps losses finite until the validation.
    diverges = {"net": "test_efficientnet_gn", "lr": 100.0, "clip_norm": None, "epochs": 30, "optimizer": "sgd"}
    with pytest.raises(UserError, match="the loss is no longer finite from epoch"):
        train(tiny, "diverged", diverges)
    left: Path = tiny.resume / "diverged" / "not-finite.json"
    first = read_json(left)[0]
    assert set(first) == {"epoch", "step", "image_ids"}
    assert len(first["image_ids"]) == 8


def trainer_of(tiny: Tiny, folder: Path, dtype: torch.dtype = torch.float32, **changes: object) -> Trainer:
    """A trainer that saves at the ends of epochs."""
    spec = build_spec(MemberSeeds(1, "tiny", 0), recipe(**changes), "code", MemberInputs(tiny.pixels, tiny.split))
    device = Device(torch.device("cpu"), dtype, torch.contiguous_format)
    return Trainer(spec, device, folder, Runtime(checkpoint_minutes=1000), 0)


def test_a_skipped_step_of_fp16_moves_no_average_and_counts_for_no_loss(tiny: Tiny, tmp_path: Path) -> None:
    trainer = trainer_of(tiny, tmp_path, torch.float16, ema=0.9)
    losses, fit = [], trainer._step.fit_in_memory

    def step(
        images: torch.Tensor, targets: torch.Tensor, number: int, *parts_and_ahead: int
    ) -> tuple[torch.Tensor, int]:
        scaler, average = trainer.state.scaler, {name: one.clone() for name, one in trainer.state.average.items()}
        averages.append(average)
        scale = scaler.get_scale()
        if number == 2:
            scaler.update(2.0**120)
        loss, parts = fit(images, targets, number, *parts_and_ahead)
        if number == 2:
            scaler.update(scale)
            loss = loss * float("nan")
        else:
            losses.append(loss.item())
        return loss, parts

    averages: list[dict[str, torch.Tensor]] = []
    trainer._step.fit_in_memory = step  # type: ignore[method-assign]
    history = trainer.fit().history
    assert trainer.state.progress.averaged == 2 * STEPS - 1
    before, after = averages[2], averages[3]
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert not all(torch.equal(averages[1][name], before[name]) for name in before)
    assert history["train_loss"].tolist() == pytest.approx([sum(losses[:3]) / 3, sum(losses[3:]) / STEPS])


def test_a_validation_that_is_not_finite_stops_the_run_at_once(
    tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, calls = foldvote.training.loop.validate, []

    def validate(*arguments: Any, **named: Any) -> tuple[dict[str, float], Any]:
        calls.append(0)
        scores, predicted = whole(*arguments, **named)
        return (scores | {"val_loss": math.nan} if len(calls) == 2 else scores), predicted

    monkeypatch.setattr(foldvote.training.loop, "validate", validate)
    with pytest.raises(UserError, match="tiny fold 0: the validation loss is no longer finite from epoch 2 on; lower"):
        trainer_of(tiny, tmp_path, epochs=4).fit()
    assert len(calls) == 2
    assert [path.name for path in tmp_path.iterdir()] == [f"step-{STEPS:09d}.ckpt"]


def test_a_save_that_takes_long_is_not_made_after_every_epoch(
    tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    saved: list[int] = []

    def save(_folder: Path, step: int, _state: dict[str, Any]) -> None:
        saved.append(step)
        time.sleep(0.01)

    monkeypatch.setattr(foldvote.training.loop, "save_checkpoint", save)
    monkeypatch.setattr(foldvote.training.loop, "_SAVE_EVERY", 60_000)  # ten minutes, on machines as busy as can be
    trainer_of(tiny, tmp_path, epochs=5).fit()
    assert saved == [STEPS, 5 * STEPS]


@pytest.mark.parametrize(("changes", "held"), [({"epoch": "last"}, 0), ({"epoch": "best"}, 1), ({"soup": 2}, 2)])
def test_weights_that_no_one_asks_for_are_not_kept(
    tiny: Tiny, tmp_path: Path, changes: dict[str, object], held: int
) -> None:
    trainer = trainer_of(tiny, tmp_path, **changes)
    trainer.fit()
    assert len(trainer.state.state_dict()["best_epochs"]) == held


def test_a_flipped_pixel_ends_a_training_in_one_line(tiny: Tiny, tmp_path: Path) -> None:
    spec = build_spec(MemberSeeds(1, "tiny", 0), recipe(), "code", MemberInputs(tiny.pixels, tiny.split))
    images = spec.training_set.images
    image_id = spec.training_set.training["image_id"].iloc[3]
    pixels = images[images.row_of[image_id]].tobytes()
    content = tiny.pixels.read_bytes()
    place = content.index(pixels) + 100
    damaged = tmp_path / "train.arrow"
    damaged.write_bytes(content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :])
    spec = build_spec(MemberSeeds(1, "tiny", 0), recipe(), "code", MemberInputs(damaged, tiny.split))
    device = Device(torch.device("cpu"), torch.float32, torch.contiguous_format)
    for workers in (0, 1):
        with pytest.raises(UserError) as error:
            Trainer(spec, device, tmp_path / "resume", Runtime(), workers).fit()
        (line,) = error.value.faults
        assert line.startswith(f"{damaged}: damaged: the pixels of image {image_id} (row ")
        assert line.endswith("delete it and run your command again")


def test_f44_a_loader_process_that_dies_is_told_and_the_run_goes_on_later(
    tiny: Tiny, monkeypatch: pytest.MonkeyPatch
) -> None:
    changes = {"epochs": 3, "batch_size": 2}
    undisturbed = train(tiny, "alive", changes)

    def train_step(trainer: Trainer, images: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        if trainer.steps_done == 2:
            for worker in trainer._loading._workers:  # and not those that an earlier test has left
                os.kill(worker.pid, signal.SIGKILL)
        return whole(trainer, images, targets)

    whole = Trainer.train_step
    with monkeypatch.context() as patch, pytest.raises(UserError, match="a process that loads images died"):
        patch.setattr(Trainer, "train_step", train_step)
        train(tiny, "orphaned", changes, workers=1)
    assert train(tiny, "orphaned", changes) == undisturbed


@pytest.mark.parametrize("killed", [False, True])
def test_an_error_in_the_middle_of_training_leaves_no_loader_processes(
    tiny: Tiny, monkeypatch: pytest.MonkeyPatch, killed: bool
) -> None:
    """A process whose loaders still run cannot end: it waits for them, and they for it."""

    def train_step(trainer: Trainer, *_: object) -> None:
        loading.append(trainer._loading)
        for worker in trainer._loading._workers if killed else ():
            os.kill(worker.pid, signal.SIGKILL)
            worker.join()
        raise UserError("in the middle")

    loading: list[Any] = []
    monkeypatch.setattr(Trainer, "train_step", train_step)
    with pytest.raises(UserError, match="in the middle"):
        train(tiny, f"in-the-middle-{killed}", {"epochs": 3, "batch_size": 2}, workers=2)
    assert len(loading[0]._workers) == 2
    assert not [worker for worker in loading[0]._workers if worker.is_alive()]
