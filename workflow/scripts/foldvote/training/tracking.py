"""Trackers that a training run reports to besides its history: TensorBoard, Weights & Biases and MLflow.

A tracker can fail (a full disk, a missing package, a changed interface), and this must not end the training. So every
call is guarded: an error is reported once, and that sink is not used again. No sink uses the network unless environment
variables configure it, and none changes the state of torch's random generators.
"""

import json
import math
import os
import time
import warnings
from collections.abc import Callable, Sequence
from copy import deepcopy
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import nn

from foldvote.config.runtime import Tracking
from foldvote.io.files import canonical, sha256_bytes
from foldvote.runtime.job_log import log

MOST_PICTURES = 64
_ARROW = " -> "
_WRONG, _RIGHT, _PAPER = (200, 0, 0), (40, 40, 40), (255, 255, 255)
_LONGEST_VALUE = 500  # characters of a setting; trackers reject longer ones
_NETWORK_SECONDS = 10


class Sink(Protocol):
    """One tracker. Its methods may raise any exception."""

    def scalars(self, values: dict[str, float], step: int) -> None:
        """Add one point to each named curve."""

    def picture(self, image: np.ndarray, step: int) -> None:
        """Show one uint8 image (height, width, 3)."""

    def graph(self, model: nn.Module, example: torch.Tensor) -> None:
        """Show the graph of the network on an example batch."""

    def close(self) -> None:
        """Write what is buffered."""


class Sinks:
    """All sinks of one run. Its methods never raise, and do not change the state of torch's random generators.

    Args:
        makers: by the name of each sink the function that opens it.
        warn: called with one line for each error.
    """

    def __init__(self, makers: dict[str, Callable[[], Sink]], warn: Callable[[str], None]) -> None:
        self._warn = warn
        self._open: dict[str, Sink] = {}
        for name, make in makers.items():
            self._guard(name, partial(self._start, name, make))

    def scalars(self, values: dict[str, float], step: int) -> None:
        """Add one point to each named curve; `step` is the number of finished steps (or epochs)."""
        self._each(lambda sink: sink.scalars(values, step))

    def pictures(self, images: np.ndarray | torch.Tensor, captions: Sequence[str], step: int) -> None:
        """Show images with their true and predicted classes, at most MOST_PICTURES of them.

        Args:
            images: uint8 (images, height, width, 3).
            captions: one per image; `truth -> predicted` marks a wrong prediction.
            step: number of finished steps (or epochs).
        """
        if self._open:
            self._guard("pictures", partial(self._show, images, captions, step), lost="these pictures")

    def graph(self, model: nn.Module, example: torch.Tensor) -> None:
        """Show the graph of a network; the network itself is not changed.

        If the network cannot be traced, it has no graph, and its curves are still recorded.

        Args:
            model: the network.
            example: an input batch.
        """
        for name, sink in self._open.items():
            self._guard(name, partial(sink.graph, model, example), lost="the graph")

    def close(self) -> None:
        """Write what is buffered. Call this also if the training ends with an error."""
        self._each(lambda sink: sink.close())
        self._open.clear()

    def _start(self, name: str, make: Callable[[], Sink]) -> None:
        self._open[name] = make()

    def _show(self, images: np.ndarray | torch.Tensor, captions: Sequence[str], step: int) -> None:
        sheet = draw_grid(torch.as_tensor(images).cpu().numpy(), captions)
        self._each(lambda sink: sink.picture(sheet, step))

    def _each(self, call: Callable[[Sink], None]) -> None:
        for name, sink in list(self._open.items()):
            self._guard(name, partial(call, sink))

    def _guard(self, name: str, call: Callable[[], None], lost: str | None = None) -> None:
        """Run a call. If it raises, warn; drop the sink unless `lost` names what alone is missing then."""
        try:
            with torch.random.fork_rng(devices=[]):
                call()
        except Exception as error:  # a tracker may raise anything, and none of it should end the training
            self._warn(f"warning: {name}: {_reason(error)}; tracking goes on without {lost or 'it'}")
            if lost is None:
                self._open.pop(name, None)


def open_sinks(
    settings: Tracking, results: Path, name: str, config: dict[str, Any], warn: Callable[[str], None], step: int = 0
) -> Sinks:
    """Open the configured trackers.

    Args:
        settings: the `runtime.tracking` section.
        results: the results folder; sinks write to `tensorboard/`, `wandb/` and `mlruns/` in it.
        name: name of the run, such as `model=small/fold=0`; also its folder below `tensorboard/`.
        config: settings of the run, shown by W&B and MLflow.
        warn: called with one line for each error.
        step: number of finished steps (or epochs) of a resumed run. Later points were written before the run was killed
            and are dropped, so that its curves have one line.
    """
    makers: dict[str, Callable[[], Sink]] = {}
    if settings.tensorboard:
        makers["tensorboard"] = lambda: _TensorBoard(results / "tensorboard" / name, step)
    if (project := settings.wandb) is not None:
        makers["wandb"] = lambda: _Wandb(project, results, name, config)
    if (experiment := settings.mlflow) is not None:
        makers["mlflow"] = lambda: _Mlflow(experiment, results, name, config, step)
    return Sinks(makers, warn)


def draw_grid(images: np.ndarray, captions: Sequence[str], side: int = 128) -> np.ndarray:
    """Draw images in a grid, each above its caption; wrong predictions have a red frame and caption.

    Args:
        images: uint8 (images, height, width, 3), at least one; only the first MOST_PICTURES are drawn.
        captions: one per image; `truth -> predicted` is wrong if the two differ, any other caption is right.
        side: longer side of an image in the grid, in pixels.

    Returns:
        uint8 (height, width, 3).
    """
    shown = [Image.fromarray(image) for image in images[:MOST_PICTURES]]
    scale = side / max(shown[0].size)
    width, height = (max(round(length * scale), 1) for length in shown[0].size)
    font = ImageFont.load_default()
    lines = [text.split(_ARROW, 1) for text in captions[: len(shown)]]
    widest = max(math.ceil(font.getbbox(line)[2]) for pair in lines for line in pair)
    line_height = math.ceil(font.getbbox("Ág")[3]) + 1
    cell_width, cell_height = max(width, widest) + 8, height + 2 * line_height + 10
    columns = max(round(math.sqrt(len(shown) * cell_height / cell_width)), 1)
    rows = math.ceil(len(shown) / columns)
    sheet = Image.new("RGB", (columns * cell_width, rows * cell_height), _PAPER)
    draw = ImageDraw.Draw(sheet)
    for number, (image, pair) in enumerate(zip(shown, lines, strict=True)):
        wrong = len(pair) == 2 and pair[0] != pair[1]
        left, top = number % columns * cell_width + 4, number // columns * cell_height + 4
        sheet.paste(image.resize((width, height), Image.Resampling.BICUBIC), (left, top))
        if wrong:
            draw.rectangle((left - 3, top - 3, left + width + 2, top + height + 2), outline=_WRONG, width=3)
        shown_lines = [pair[0], f"{_ARROW.lstrip()}{pair[1]}"] if wrong else pair[:1]
        for place, line in enumerate(shown_lines):
            at = (left, top + height + 3 + place * line_height)
            draw.text(at, line, fill=_WRONG if place else _RIGHT, font=font)
    return np.asarray(sheet)


class _TensorBoard:
    """Event files in one folder per run, for `tensorboard --logdir <results>/tensorboard`."""

    def __init__(self, folder: Path, step: int) -> None:
        from torch.utils.tensorboard import SummaryWriter

        # The point at `step` itself was written before the state was saved, so it stays.
        self._writer = SummaryWriter(str(folder), purge_step=step + 1 if step else 0, max_queue=1000, flush_secs=30)

    def scalars(self, values: dict[str, float], step: int) -> None:
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)

    def picture(self, image: np.ndarray, step: int) -> None:
        self._writer.add_image("pictures", image, step, dataformats="HWC")

    def graph(self, model: nn.Module, example: torch.Tensor) -> None:
        # Tracing switches modes and adds attributes, so a copy is traced and not the network in training.
        copy, one = deepcopy(model).cpu().eval(), example[:1].detach().cpu()
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            traced = torch.jit.trace(copy, one, check_trace=False)  # the check takes three times as long
            self._writer.add_graph(traced, one)

    def close(self) -> None:
        self._writer.close()


class _Wandb:
    """A run of Weights & Biases, kept on this machine unless WANDB_MODE is set; `wandb sync` sends it later."""

    def __init__(self, project: str, results: Path, name: str, config: dict[str, Any]) -> None:
        os.environ.setdefault("WANDB_ERROR_REPORTING", "false")  # otherwise it sends error reports even when offline
        import wandb

        results.mkdir(parents=True, exist_ok=True)  # otherwise it silently writes elsewhere
        self._wandb = wandb
        self._run = wandb.init(
            project=project,
            name=name,
            id=_identity(name, config),  # a resumed run keeps its id; W&B drops points that it already has
            resume="allow",
            config=config,
            dir=str(results),
            mode=os.environ.get("WANDB_MODE", "offline"),
            settings=wandb.Settings(console="off", init_timeout=_NETWORK_SECONDS),
        )

    def scalars(self, values: dict[str, float], step: int) -> None:
        self._run.log(values, step=step)

    def picture(self, image: np.ndarray, step: int) -> None:
        self._run.log({"pictures": self._wandb.Image(image)}, step=step)

    def graph(self, model: nn.Module, example: torch.Tensor) -> None:
        """Do nothing: W&B would put hooks into the network in training."""

    def close(self) -> None:
        self._run.finish()


class _Mlflow:
    """A run of MLflow: files in `mlruns` unless MLFLOW_TRACKING_URI is set."""

    def __init__(self, experiment: str, results: Path, name: str, config: dict[str, Any], step: int) -> None:
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
        os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")  # from 3.7 on it rejects plain files otherwise
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", str(_NETWORK_SECONDS))
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
        from mlflow import MlflowClient
        from mlflow.entities import Metric, Param

        self._metric = Metric
        uri = os.environ.get("MLFLOW_TRACKING_URI") or (results / "mlruns").resolve().as_uri()
        self._client = client = MlflowClient(tracking_uri=uri)
        known = client.get_experiment_by_name(experiment)
        number = known.experiment_id if known else client.create_experiment(experiment)
        identity = _identity(name, config)
        # A resumed run continues the same MLflow run.
        found = client.search_runs([number], f"tags.foldvote = '{identity}'", max_results=1) if step else []
        if found:
            self._run = found[0].info.run_id
            self._done = max((self._last_step(key) for key in found[0].data.metrics), default=0)
            return
        self._run = client.create_run(number, tags={"foldvote": identity}, run_name=name).info.run_id
        self._done = 0
        params = [Param(key, _short(value)) for key, value in config.items()]
        client.log_batch(self._run, params=params)

    def scalars(self, values: dict[str, float], step: int) -> None:
        if step > self._done:  # MLflow would keep both of two points at one step
            now = time.time_ns() // 1_000_000
            self._client.log_batch(self._run, metrics=[self._metric(key, values[key], now, step) for key in values])

    def picture(self, image: np.ndarray, step: int) -> None:
        self._client.log_image(self._run, image, f"pictures/step-{step:08d}.png")

    def graph(self, model: nn.Module, example: torch.Tensor) -> None:
        """Do nothing: MLflow cannot show graphs."""

    def close(self) -> None:
        self._client.set_terminated(self._run)

    def _last_step(self, key: str) -> int:
        return max(point.step for point in self._client.get_metric_history(self._run, key))


def no_sinks(_epochs: int) -> Sinks:
    """Report to no tracker."""
    return Sinks({}, log)


def _identity(name: str, config: dict[str, Any]) -> str:
    """An id that is the same for the same name and settings, so that trackers recognise a resumed run."""
    return sha256_bytes(canonical({"name": name, "config": config}).encode())[:16]


def _short(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, default=str)
    return text[:_LONGEST_VALUE]


def _reason(error: Exception) -> str:
    """The text of an error in one line."""
    if isinstance(error, ModuleNotFoundError) and error.name in ("tensorboard", "wandb", "mlflow"):
        return f"is not installed (`pip install {error.name}`)"
    first = next(iter(str(error).strip().splitlines()), "")
    return f"{type(error).__name__}: {first}"
