"""Trackers: what TensorBoard reads back, and that none of them can fail or change a training."""

import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from foldvote.models import build_model
from foldvote.sections import Tracking
from foldvote.tracking import Sinks, caption, draw_grid, open_sinks
from tiny import SCHEME, recipe

NAME = "model=tiny/fold=0"
OFF = {"tensorboard": False}


def opened(folder: Path, told: list[str], step: int = 0, **settings: Any) -> Sinks:
    return open_sinks(Tracking.model_validate(settings), folder, NAME, {"lr": 0.1}, told.append, step)


def events(folder: Path) -> EventAccumulator:
    read = EventAccumulator(str(folder / "tensorboard" / NAME), size_guidance={"scalars": 0, "images": 0})
    return read.Reload()


def test_tensorboard_shows_curves_pictures_and_the_graph(tmp_path: Path) -> None:
    told: list[str] = []
    sinks = opened(tmp_path, told)
    sinks.graph(build_model(recipe(), SCHEME, 1), torch.zeros(1, 3, 32, 24))
    for epoch in (1, 2):
        sinks.scalars({"val_macro_f1": epoch / 4}, epoch)
    sinks.pictures(np.zeros((5, 32, 24, 3), np.uint8), ["blue", "blue -> red", "red", "red", "green"], 2)
    sinks.close()
    read = events(tmp_path)
    assert [(point.step, point.value) for point in read.Scalars("val_macro_f1")] == [(1, 0.25), (2, 0.5)]
    assert [image.step for image in read.Images("pictures")] == [2]
    assert len(read.Graph().node) > 10
    assert not told


def test_a_run_that_goes_on_draws_one_line(tmp_path: Path) -> None:
    for epochs, done in (((1, 2, 3), 0), ((2, 3, 4), 1)):
        sinks = opened(tmp_path, [], step=done)
        for epoch in epochs:
            sinks.scalars({"loss": float(epoch + 10 * done)}, epoch)
        sinks.close()
    assert [(point.step, point.value) for point in events(tmp_path).Scalars("loss")] == [
        (1, 1),
        (2, 12),
        (3, 13),
        (4, 14),
    ]


@pytest.mark.parametrize("name", ["wandb", "mlflow"])
def test_a_missing_package_is_told_once_with_its_remedy(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, name, None)
    told: list[str] = []
    sinks = opened(tmp_path, told, **OFF, **{name: "project"})
    sinks.scalars({"loss": 1.0}, 1)
    sinks.close()
    assert len(told) == 1
    assert told[0].startswith(f"warning: {name}: ")


class FakeRun:
    def __init__(self, fails: bool) -> None:
        self.fails, self.logged = fails, []

    def log(self, values: dict[str, float], step: int) -> None:
        if self.fails:
            raise OSError("no space left\nat all")
        self.logged.append((step, values))

    def finish(self) -> None:
        self.logged.append("finished")


@pytest.mark.parametrize("fails", [False, True])
def test_wandb_is_offline_and_its_faults_are_its_own(
    tmp_path: Path, fails: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, given, told = FakeRun(fails), {}, []
    module = ModuleType("wandb")
    module.Settings = lambda **settings: settings
    module.Image = lambda image: image.shape
    module.init = lambda **arguments: given.update(arguments) or run
    monkeypatch.setitem(sys.modules, "wandb", module)
    monkeypatch.delenv("WANDB_MODE", raising=False)
    sinks = opened(tmp_path, told, **OFF, wandb="masks")
    sinks.scalars({"loss": 1.0}, 1)
    sinks.scalars({"loss": 0.5}, 2)
    sinks.close()
    assert (given["mode"], given["project"], given["dir"]) == ("offline", "masks", str(tmp_path))
    if fails:
        assert told == ["warning: wandb: OSError: no space left; tracking goes on without it"]
        assert not run.logged
    else:
        assert run.logged == [(1, {"loss": 1.0}), (2, {"loss": 0.5}), "finished"]
        assert not told


def test_mlflow_writes_beside_the_results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[tuple[str, Any]] = []

    class Client:
        def __init__(self, tracking_uri: str) -> None:
            calls.append(("uri", tracking_uri))

        def get_experiment_by_name(self, _name: str) -> None:
            return None

        def create_experiment(self, name: str) -> str:
            calls.append(("experiment", name))
            return "7"

        def create_run(self, *_: Any, **__: Any) -> SimpleNamespace:
            return SimpleNamespace(info=SimpleNamespace(run_id="r"))

        def log_batch(self, _run: str, metrics: list[Any] = (), params: list[Any] = ()) -> None:
            calls.extend(("metric", metric) for metric in metrics)
            calls.extend(("param", param) for param in params)

        def set_terminated(self, run: str) -> None:
            calls.append(("ended", run))

    module, entities = ModuleType("mlflow"), ModuleType("mlflow.entities")
    module.MlflowClient, module.entities = Client, entities
    entities.Metric, entities.Param = (lambda *values: values), (lambda *values: values)
    monkeypatch.setitem(sys.modules, "mlflow", module)
    monkeypatch.setitem(sys.modules, "mlflow.entities", entities)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    told: list[str] = []
    sinks = opened(tmp_path, told, **OFF, mlflow="masks")
    sinks.scalars({"loss": 1.0}, 1)
    sinks.close()
    assert calls[0] == ("uri", (tmp_path / "mlruns").resolve().as_uri())
    assert [name for name, _ in calls] == ["uri", "experiment", "param", "metric", "ended"]
    assert calls[3][1][:2] == ("loss", 1.0)
    assert not told


def test_sinks_leave_the_net_and_torchs_draws_as_they_were(tmp_path: Path) -> None:
    model = build_model(recipe(drop_rate=0.5), SCHEME, 1)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    torch.manual_seed(3)
    undisturbed = torch.rand(4)
    torch.manual_seed(3)
    sinks = opened(tmp_path, [])
    sinks.graph(model, torch.rand(1, 3, 32, 24, generator=torch.Generator().manual_seed(1)))
    sinks.pictures(np.zeros((2, 32, 24, 3), np.uint8), ["a", "b"], 1)
    sinks.close()
    assert torch.equal(torch.rand(4), undisturbed)
    assert model.training
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())


def test_a_wrong_picture_is_marked_and_its_neighbour_is_not() -> None:
    images = np.zeros((2, 64, 48, 3), np.uint8)
    right = draw_grid(images, [caption("red", "red"), caption("red", "red")])
    wrong = draw_grid(images, [caption("red", "red"), caption("red", "blue")])
    assert right.shape == wrong.shape
    reds = [((grid[..., 0] > 150) & (grid[..., 1] < 50)).sum() for grid in (right, wrong)]
    assert reds[0] == 0
    assert reds[1] > 100
