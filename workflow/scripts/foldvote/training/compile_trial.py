"""Whether a compiled net pays for its compilation: a short trial on the first batch, remembered for other members.

Only training that need not be reproducible is tried (`runtime.reproducible: false`, on a GPU): torch.compile chooses
other kernels than torch does. What is remembered are seconds and not the decision, which depends on the steps ahead.
"""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

from foldvote.config.recipe import Recipe
from foldvote.errors import UserError, first_line
from foldvote.io.files import read_json, write_json
from foldvote.runtime.device import Device
from foldvote.runtime.job_log import log
from foldvote.runtime.locks import turn
from foldvote.runtime.memory import release_memory

Net = Callable[[torch.Tensor], torch.Tensor]
Pass = Callable[[Net], None]

DEFAULT, GRAPHS = "default", "reduce-overhead"  # modes of torch.compile; the second one replays CUDA graphs
_FILE = "compile.json"
_WARM_UP, _TIMED = 4, 10  # passes; the first ones compile, then record CUDA graphs
_WORTH_A_TRIAL = 90.0  # seconds of plain passes ahead; fewer would not pay for a compilation of about a minute


class CompileTrial:
    """Tries torch.compile on a net, or reads what another member with the same net has measured."""

    def __init__(
        self,
        file: Path,
        device: Device,
        compile_net: Callable[[nn.Module, str], Net] | None = None,
        clock: Callable[[], float] | None = None,
    ) -> None:
        """Set up a trial.

        Args:
            file: JSON file in which the measurements are remembered.
            device: where the net runs.
            compile_net: compiles a net in a mode of torch.compile; None: torch.compile does.
            clock: seconds, when all work of the device is done; None: the real ones.
        """
        self._file, self._device = file, device
        self._compile = compile_net or (lambda model, mode: torch.compile(model, mode=mode))
        self._clock = clock or self._device_seconds

    def choose(
        self, model: nn.Module, of: dict[str, Any], whole: bool, run: Pass, steps_ahead: int
    ) -> tuple[Net, str | None]:
        """The net that is expected to finish first, and the mode it is compiled in; the model itself and None if none.

        Args:
            model: the net, on the device.
            of: plain values on which seconds depend, beside the device and the version of torch.
            whole: whether a batch goes through the net as a whole. In parts, gradients that CUDA graphs keep in their
                own memory would be overwritten before they are added up, so these are left out.
            run: a forward and a backward pass of a batch through a net, which leaves the weights as they are.
            steps_ahead: number of steps that the net is chosen for.
        """
        of = of | {"device": self._device.name, "torch": torch.__version__}
        found = [entry for entry in self._remembered() if entry["of"] == of]
        if found:
            measured: dict[str, Any] = found[0]
        else:
            plain = self._seconds(model, run)[1]
            if plain * steps_ahead < _WORTH_A_TRIAL:
                log(f"compile: no trial for {steps_ahead:,} steps of {plain * 1000:.1f} ms, which is not long enough")
                return model, None
            modes = [DEFAULT, GRAPHS] if whole else [DEFAULT]
            tried = {mode: self._try(model, mode, run) for mode in modes}
            measured = {"of": of, "plain": plain, "modes": tried}
            with turn(self._file.parent):
                write_json(self._file, [*self._remembered(), measured])
        mode = fastest(measured, steps_ahead)
        log(f"compile: {_told(measured)}; for {steps_ahead:,} steps: {mode or 'as it is'}")
        return (model, None) if mode is None else self._start(model, mode, run)

    def _start(self, model: nn.Module, mode: str, run: Pass) -> tuple[Net, str | None]:
        """Compile a net and run it once; the model itself where that fails, as another machine may have no compiler."""
        net = self._compile(model, mode)
        try:
            run(net)
        except Exception as error:
            log(f"warning: compile: {mode} failed, so the net is not compiled ({_reason(error)})")
        else:
            return net, mode
        forget_compiled()
        return model, None

    def _try(self, model: nn.Module, mode: str, run: Pass) -> dict[str, float] | None:
        """Seconds to start a compiled net, and of a pass afterwards; None if it cannot be compiled or run."""
        seconds = None
        try:
            start, each = self._seconds(self._compile(model, mode), run)
            seconds = {"start": start, "step": each}
        except Exception as error:  # a missing compiler, an operation that it lacks, memory: training goes on without
            log(f"compile: {mode} failed ({_reason(error)})")
        forget_compiled()  # graphs hold memory
        return seconds

    def _seconds(self, net: Net, run: Pass) -> tuple[float, float]:
        """Seconds of the first passes together, and of one pass afterwards."""
        begun = self._clock()
        for _ in range(_WARM_UP):
            run(net)
        warm = self._clock()
        for _ in range(_TIMED):
            run(net)
        return warm - begun, (self._clock() - warm) / _TIMED

    def _device_seconds(self) -> float:
        if self._device.torch_device.type == "cuda":
            torch.cuda.synchronize(self._device.torch_device)
        return time.perf_counter()

    def _remembered(self) -> list[dict[str, Any]]:
        """All measurements in the file; none if there is no such file, or it is damaged."""
        try:
            return list(read_json(self._file))
        except UserError:
            return []


def trial_of(recipe: Recipe, device: Device, resume_dir: Path) -> CompileTrial | None:
    """The trial that decides for a member; None where its recipe does, or the result must be reproducible.

    Args:
        recipe: the recipe; compile is used.
        device: where and how the member trains. Several processes that train it together make no trial, nor does a
            net whose input or dropped paths change from epoch to epoch: it would be compiled again each time, or one
            whose features the loss needs.
        resume_dir: the folder of its checkpoints, <state>/resume/model=<m>/fold=<k> or the like.
    """
    changes = recipe.progressive is not None or (recipe.drop_path > 0 and recipe.drop_path_schedule != "constant")
    if recipe.compile != "auto" or device.reproducible or device.group.size > 1 or changes or recipe.contrasts:
        return None
    return CompileTrial(resume_dir.parents[1] / _FILE, device)


def fastest(measured: dict[str, Any], steps: int) -> str | None:
    """The mode that takes so many steps soonest, its compilation included; None: the net as it is.

    Args:
        measured: seconds: `plain` of a step of the net as it is, and in `modes` the `start` of each mode and its
            `step`; null for a mode that failed.
        steps: number of steps.
    """
    took: dict[str | None, float] = {None: measured["plain"] * steps}
    took |= {mode: one["start"] + one["step"] * steps for mode, one in measured["modes"].items() if one}
    return min(took, key=lambda mode: took[mode])


def forget_compiled() -> None:
    """Drop all compiled code of this process, and the memory that CUDA graphs hold."""
    torch.compiler.reset()
    release_memory()


def _reason(error: Exception) -> str:
    """The first line of an error; torch.compile's own is of what it caught."""
    return first_line(getattr(error, "inner_exception", error))


def _told(measured: dict[str, Any]) -> str:
    """The measurements in words."""
    words = [f"{measured['plain'] * 1000:.1f} ms a step as it is"]
    for mode, one in measured["modes"].items():
        words.append(f"{mode} {one['step'] * 1000:.1f} ms after {one['start']:.0f} s" if one else f"{mode} failed")
    return ", ".join(words)
