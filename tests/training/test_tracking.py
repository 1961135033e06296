"""Trackers: what they record of a training run, and that their errors do not end it."""

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.compat.proto.graph_pb2 import GraphDef
from torch import nn

from foldvote.config.runtime import Tracking
from foldvote.training.tracking import MOST_PICTURES, Sinks, draw_grid, open_sinks
from support.data_folders import picture

NAME = "model=small/fold=1"
CONFIG = {"net": "test_resnet", "lr": 0.1, "augment": [{"name": "hflip"}], "long": "x" * 9000}
IMAGES = np.stack([picture(32, 24, seed) for seed in range(5)])
CAPTIONS = ["cat", "cat -> dog", *["dog"] * 3]


class Broken:
    """A sink that fails at a given call."""

    def __init__(self, at: str) -> None:
        self.at, self.calls = at, []

    def __getattr__(self, name: str) -> Callable[..., None]:
        def call(*_: object) -> None:
            self.calls.append(name)
            if name == self.at:
                raise OSError(28, "No space left\non device")

        return call


def run(tmp_path: Path, said: list[str], step: int = 0, **settings: Any) -> Sinks:
    return open_sinks(Tracking(**{"tensorboard": False} | settings), tmp_path, NAME, CONFIG, said.append, step)


def events(tmp_path: Path) -> EventAccumulator:
    return EventAccumulator(str(tmp_path / "tensorboard" / NAME)).Reload()


def points(tmp_path: Path, tag: str) -> list[tuple[int, float]]:
    return [(event.step, event.value) for event in events(tmp_path).Scalars(tag)]


def test_tensorboard_holds_curves_pictures_and_the_graph(tmp_path: Path) -> None:
    said: list[str] = []
    sinks = run(tmp_path, said, tensorboard=True)
    net = timm.create_model("test_resnet", num_classes=3)
    sinks.scalars({"train/loss": 0.5, "lr": 0.25}, 1)
    sinks.scalars({"train/loss": 0.25}, 2)
    sinks.pictures(torch.from_numpy(IMAGES), CAPTIONS, 2)
    sinks.graph(net, torch.zeros(4, 3, 32, 24))
    sinks.close()
    seen = events(tmp_path)
    assert points(tmp_path, "train/loss") == [(1, 0.5), (2, 0.25)]
    assert points(tmp_path, "lr") == [(1, 0.25)]
    shown = seen.Images("pictures")[0]
    assert (shown.height, shown.width) == draw_grid(IMAGES, CAPTIONS).shape[:2]
    graph = GraphDef.FromString(seen.Tags()["graph"] and seen._graph)
    assert any("ResNet/Linear[fc]" in node.name for node in graph.node)
    assert said == []


def test_a_run_that_goes_on_draws_each_point_once(tmp_path: Path) -> None:
    first = run(tmp_path, [], tensorboard=True)
    for step in range(1, 7):
        first.scalars({"loss": float(step)}, step)
    first.close()
    second = run(tmp_path, [], step=4, tensorboard=True)  # killed after 6 steps, its state saved after 4
    for step in range(5, 9):
        second.scalars({"loss": 10.0 + step}, step)
    second.close()
    assert points(tmp_path, "loss") == [
        *((step, float(step)) for step in range(1, 5)),
        *((s, 10.0 + s) for s in range(5, 9)),
    ]


def test_a_run_from_the_start_leaves_no_point_of_the_one_before(tmp_path: Path) -> None:
    for value, steps in ((1.0, 5), (2.0, 2)):
        sinks = run(tmp_path, [], tensorboard=True)
        for step in range(steps):
            sinks.scalars({"loss": value}, step)
        sinks.close()
    assert points(tmp_path, "loss") == [(0, 2.0), (1, 2.0)]


def test_a_training_is_the_same_with_and_without_tracking(tmp_path: Path) -> None:
    def trained(settings: dict[str, Any]) -> list[torch.Tensor]:
        torch.manual_seed(3)
        net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Dropout(0.5), nn.Flatten(), nn.LazyLinear(2))
        optimizer = torch.optim.SGD(net.parameters(), 0.1)
        images = torch.randn(4, 3, 8, 8)
        net(images)
        sinks = run(tmp_path, [], **settings)
        sinks.graph(net, images)
        for step in range(3):
            loss = net(images).square().mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            sinks.scalars({"loss": loss.item()}, step)
            sinks.pictures(IMAGES, CAPTIONS, step)
        assert net.training
        sinks.close()
        return [*net.state_dict().values(), torch.get_rng_state()]

    with_tracking, without = trained({"tensorboard": True}), trained({})
    assert all(torch.equal(one, other) for one, other in zip(with_tracking, without, strict=True))
    assert events(tmp_path).Tags()["graph"]


def test_a_sink_that_draws_random_numbers_changes_none_of_ours() -> None:
    sink = Broken("never")
    sink.scalars = lambda *_: torch.rand(9)
    before = torch.get_rng_state()
    Sinks({"noisy": lambda: sink}, print).scalars({"loss": 1.0}, 1)
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize("at", ["scalars", "picture", "close"])
def test_a_sink_that_fails_is_named_once_and_left_alone(at: str) -> None:
    said: list[str] = []
    broken, sound = Broken(at), Broken("never")
    sinks = Sinks({"broken": lambda: broken, "sound": lambda: sound}, said.append)
    for step in range(2):
        sinks.scalars({"loss": 1.0}, step)
        sinks.pictures(IMAGES, CAPTIONS, step)
    sinks.close()
    sinks.scalars({"loss": 1.0}, 3)
    assert said == ["warning: broken: OSError: [Errno 28] No space left; tracking goes on without it"]
    assert broken.calls.count(at) == 1 and broken.calls[-1] == at
    assert sound.calls == ["scalars", "picture", "scalars", "picture", "close"]


def test_a_sink_that_cannot_be_opened_leaves_the_others(tmp_path: Path) -> None:
    (tmp_path / "tensorboard").write_text("a file where the folder should be")
    said: list[str] = []
    sinks = run(tmp_path, said, tensorboard=True)
    sinks.scalars({"loss": 1.0}, 1)
    sinks.close()
    assert len(said) == 1 and said[0].startswith("warning: tensorboard: ") and "\n" not in said[0]


class Untraceable(nn.Module):
    """A net that no example can be sent through."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        raise RuntimeError("not for tracing")


def test_a_net_without_a_graph_keeps_its_curves(tmp_path: Path) -> None:
    said: list[str] = []
    sinks = run(tmp_path, said, tensorboard=True)
    sinks.graph(Untraceable(), torch.zeros(1, 3, 8, 8))
    sinks.scalars({"loss": 1.0}, 1)
    sinks.close()
    assert said == ["warning: tensorboard: RuntimeError: not for tracing; tracking goes on without the graph"]
    assert points(tmp_path, "loss") == [(1, 1.0)]


def test_pictures_that_cannot_be_drawn_cost_the_pictures_only(tmp_path: Path) -> None:
    said: list[str] = []
    sinks = run(tmp_path, said, tensorboard=True)
    sinks.pictures(IMAGES, CAPTIONS[:2], 1)
    sinks.scalars({"loss": 1.0}, 1)
    sinks.close()
    assert len(said) == 1 and said[0].startswith("warning: pictures: ValueError")
    assert points(tmp_path, "loss") == [(1, 1.0)]


@pytest.mark.parametrize("package", ["wandb", "mlflow"])
def test_a_missing_package_is_one_line_that_says_how_to_get_it(
    package: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Missing:
        def find_spec(self, name: str, *_: object) -> None:
            if name == package:
                raise ModuleNotFoundError(f"No module named {name!r}", name=name)

    monkeypatch.delitem(sys.modules, package, raising=False)
    monkeypatch.setattr(sys, "meta_path", [Missing(), *sys.meta_path])
    said: list[str] = []
    sinks = run(tmp_path, said, **{package: "masks"})
    sinks.scalars({"loss": 1.0}, 1)
    sinks.close()
    assert said == [f"warning: {package}: is not installed (`pip install {package}`); tracking goes on without it"]


# --- Weights & Biases


@pytest.fixture
def wandb(monkeypatch: pytest.MonkeyPatch) -> Iterator[SimpleNamespace]:
    """A stand-in for the package that records its calls."""
    told = SimpleNamespace(init=[], logged=[], finished=0)

    class Run:
        def log(self, values: dict[str, Any], step: int) -> None:
            told.logged.append((values, step))

        def finish(self) -> None:
            told.finished += 1

    module: Any = ModuleType("wandb")
    module.Image, module.Settings = (lambda image: image.shape), dict
    module.init = lambda **arguments: told.init.append(arguments) or Run()
    monkeypatch.setitem(sys.modules, "wandb", module)
    monkeypatch.delenv("WANDB_MODE", raising=False)
    monkeypatch.setenv("WANDB_ERROR_REPORTING", "false")  # so that it is put back
    yield told


def test_wandb_is_offline_and_below_the_results(tmp_path: Path, wandb: SimpleNamespace) -> None:
    said: list[str] = []
    sinks = run(tmp_path / "results", said, wandb="masks")
    sinks.scalars({"loss": 1.0}, 1)
    sinks.pictures(IMAGES, CAPTIONS, 1)
    sinks.graph(nn.Linear(2, 2), torch.zeros(1, 2))
    sinks.close()
    [given] = wandb.init
    assert (given["mode"], given["project"], given["name"]) == ("offline", "masks", NAME)
    assert given["dir"] == str(tmp_path / "results") and (tmp_path / "results").is_dir()
    assert wandb.logged == [({"loss": 1.0}, 1), ({"pictures": draw_grid(IMAGES, CAPTIONS).shape}, 1)]
    assert wandb.finished == 1 and said == []


def test_wandb_obeys_its_environment_and_knows_a_run_again(
    tmp_path: Path, wandb: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_MODE", "online")
    run(tmp_path, [], wandb="masks")
    run(tmp_path, [], step=9, wandb="masks")
    open_sinks(Tracking(tensorboard=False, wandb="masks"), tmp_path, "model=small/fold=2", CONFIG, print)
    one, again, other = wandb.init
    assert one["mode"] == "online"
    assert one["id"] == again["id"] != other["id"] and one["resume"] == "allow"


def test_a_wandb_that_raises_costs_nothing_but_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(**_: object) -> None:
        raise ConnectionError("no route\nto host")

    module: Any = ModuleType("wandb")
    module.Settings, module.init = dict, refuse
    monkeypatch.setitem(sys.modules, "wandb", module)
    monkeypatch.setenv("WANDB_ERROR_REPORTING", "false")
    said: list[str] = []
    sinks = run(tmp_path, said, tensorboard=True, wandb="masks")
    sinks.scalars({"loss": 1.0}, 1)
    sinks.close()
    assert said == ["warning: wandb: ConnectionError: no route; tracking goes on without it"]
    assert points(tmp_path, "loss") == [(1, 1.0)]


# --- MLflow


class Store:
    """A stand-in for a tracking server: one experiment, runs with their points."""

    def __init__(self) -> None:
        self.uris: list[str] = []
        self.runs: dict[str, dict[str, Any]] = {}

    def client(self, tracking_uri: str) -> "Store":
        self.uris.append(tracking_uri)
        return self

    def get_experiment_by_name(self, name: str) -> SimpleNamespace | None:
        return SimpleNamespace(experiment_id="7") if self.runs else None

    def create_experiment(self, name: str) -> str:
        return "7"

    def create_run(self, experiment: str, tags: dict[str, str], run_name: str) -> SimpleNamespace:
        run = f"run{len(self.runs)}"
        self.runs[run] = {"tags": tags, "points": [], "params": {}, "images": [], "ended": 0}
        return SimpleNamespace(info=SimpleNamespace(run_id=run))

    def search_runs(self, experiments: list[str], wanted: str, max_results: int) -> list[SimpleNamespace]:
        newest_first = reversed(self.runs.items())
        return [
            SimpleNamespace(
                info=SimpleNamespace(run_id=run), data=SimpleNamespace(metrics={p[0]: 0 for p in it["points"]})
            )
            for run, it in newest_first
            if wanted == f"tags.foldvote = '{it['tags']['foldvote']}'"
        ][:max_results]

    def get_metric_history(self, run: str, key: str) -> list[SimpleNamespace]:
        return [SimpleNamespace(step=step) for name, _, step in self.runs[run]["points"] if name == key]

    def log_batch(self, run: str, metrics: tuple = (), params: tuple = ()) -> None:
        self.runs[run]["points"] += [(key, value, step) for key, value, _, step in metrics]
        self.runs[run]["params"] |= dict(params)

    def log_image(self, run: str, image: np.ndarray, file: str) -> None:
        self.runs[run]["images"].append((image.shape, file))

    def set_terminated(self, run: str) -> None:
        self.runs[run]["ended"] += 1


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> Store:
    store = Store()
    module: Any = ModuleType("mlflow")
    entities: Any = ModuleType("mlflow.entities")
    module.MlflowClient = store.client
    entities.Metric = entities.Param = lambda *values: values
    monkeypatch.setitem(sys.modules, "mlflow", module)
    monkeypatch.setitem(sys.modules, "mlflow.entities", entities)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    for name in ("DISABLE_TELEMETRY", "ALLOW_FILE_STORE", "HTTP_REQUEST_TIMEOUT", "HTTP_REQUEST_MAX_RETRIES"):
        monkeypatch.setenv(f"MLFLOW_{name}", "1")  # so that they are put back
    return store


def test_mlflow_keeps_files_below_the_results(tmp_path: Path, store: Store) -> None:
    said: list[str] = []
    sinks = run(tmp_path, said, mlflow="masks")
    sinks.scalars({"loss": 1.0, "lr": 0.5}, 1)
    sinks.pictures(IMAGES, CAPTIONS, 1)
    sinks.close()
    kept = store.runs["run0"]
    assert store.uris == [(tmp_path / "mlruns").as_uri()]
    assert kept["points"] == [("loss", 1.0, 1), ("lr", 0.5, 1)]
    assert kept["images"] == [(draw_grid(IMAGES, CAPTIONS).shape, "pictures/step-00000001.png")]
    assert kept["params"]["augment"] == '[{"name": "hflip"}]' and len(kept["params"]["long"]) == 500
    assert kept["ended"] == 1 and said == []


def test_mlflow_goes_on_in_the_same_run_without_doubled_points(
    tmp_path: Path, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    for start, end in ((0, 6), (4, 9), (0, 2)):
        sinks = run(tmp_path, [], step=start, mlflow="masks")
        for step in range(start + 1, end + 1):
            sinks.scalars({"loss": float(step)}, step)
        sinks.close()
    assert [point[2] for point in store.runs["run0"]["points"]] == list(range(1, 10))
    assert [point[2] for point in store.runs["run1"]["points"]] == [1, 2]  # from the start: a run of its own
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://tracker:5000")
    run(tmp_path, [], mlflow="masks")
    assert store.uris[-1] == "http://tracker:5000"


# --- the grid


def test_only_wrong_pictures_are_framed_and_written_in_red() -> None:
    def reds(captions: list[str]) -> int:
        return int((draw_grid(np.full((1, 32, 24, 3), 128, np.uint8), captions) == (200, 0, 0)).all(axis=2).sum())

    assert reds(["cat"]) == reds(["cat -> cat"]) == 0
    assert reds(["cat -> dog"]) > 3 * 2 * (128 + 96)  # the frame alone, and then the words


def test_the_grid_shows_each_picture_whole() -> None:
    colours = np.arange(1, 8, dtype=np.uint8)[:, None] * np.array([9, 20, 30], np.uint8)
    images = np.broadcast_to(colours[:, None, None], (7, 16, 12, 3))
    grid = draw_grid(images, ["a rather long name of a class"] * 7)
    counts = [int((grid == colour).all(axis=2).sum()) for colour in colours]
    assert all(count >= 128 * 96 for count in counts)


def test_the_grid_has_an_end_and_takes_any_text() -> None:
    many = np.zeros((MOST_PICTURES + 40, 8, 8, 3), np.uint8)
    texts = ["마스크 -> écharpe\n"] * len(many)
    assert draw_grid(many, texts).shape == draw_grid(many[:MOST_PICTURES], texts[:MOST_PICTURES]).shape
    assert Image.fromarray(draw_grid(many[:1], [""])).size[1] > 128
