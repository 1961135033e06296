"""What is measured while a member trains: the losses of its steps, and time."""

import math
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import TypeVar

import torch

from foldvote.runtime.distributed import SINGLE_PROCESS

T = TypeVar("T")

LOOK_EVERY = 20  # steps
MOST_BAD = 10  # losses in a row that are not finite, where a gradient scaler skips such steps
MOST_SKIPPED = 40  # steps in a row; a scale of 2^16 has become 2^-24, with which no gradient overflows


@dataclass
class LossMonitor:
    """Sum of an epoch's losses, and the steps whose loss was not finite.

    Losses stay on the device until they are looked at, so that a step does not wait for the one before it.

    Attributes:
        total: sum of the finite losses looked at.
        counted: number of these losses.
        mean: the means over all processes of some losses, a tensor on the device.
        bad: numbers of the last steps in a row whose loss was not finite.
        skipped: numbers of the last steps in a row that the gradient scaler skipped.
    """

    total: float = 0.0
    counted: int = 0
    mean: Callable[[torch.Tensor], torch.Tensor] = SINGLE_PROCESS.mean
    bad: list[int] = field(default_factory=list)
    skipped: list[int] = field(default_factory=list)
    _waiting: list[tuple[int, torch.Tensor]] = field(default_factory=list)

    @property
    def due(self) -> bool:
        """Whether it is time to look."""
        return len(self._waiting) >= LOOK_EVERY

    def add(self, number: int, loss: torch.Tensor, skipped: bool = False) -> None:
        """Note the loss of a step, a scalar on the device, and whether the step was skipped."""
        self._waiting.append((number, loss))
        self.skipped = [*self.skipped, number] if skipped else []

    def restart(self) -> None:
        """Begin another epoch."""
        self.total, self.counted = 0.0, 0

    def look(self, skips: bool) -> bool:
        """Fetch the losses noted so far.

        Args:
            skips: whether steps that are not finite are skipped (fp16); else one such step spoils the weights.

        Returns:
            Whether training may go on.
        """
        if self._waiting:
            numbers, losses = zip(*self._waiting, strict=True)
            self._waiting.clear()
            for number, loss in zip(numbers, self.mean(torch.stack(losses)).tolist(), strict=True):
                if math.isfinite(loss):
                    self.total += loss
                    self.counted += 1
                    self.bad.clear()
                else:
                    self.bad.append(number)
        return len(self.bad) < (MOST_BAD if skips else 1) and len(self.skipped) < MOST_SKIPPED


class Clock:
    """A stopwatch."""

    def __init__(self) -> None:
        self._start = time.monotonic()

    def elapsed(self) -> float:
        """Seconds since the last lap."""
        return time.monotonic() - self._start

    def lap(self) -> float:
        """Seconds since the last lap; a new lap begins."""
        seconds = self.elapsed()
        self._start += seconds
        return seconds


def timed(items: Iterable[T], told: Callable[[float], None]) -> Iterator[T]:
    """Pass items on, and tell how long each was waited for. A GPU that computes meanwhile is not waited for.

    Args:
        items: such as the batches of a loader.
        told: is given the seconds, once for each item.
    """
    clock = Clock()
    for item in items:
        told(clock.lap())
        yield item
        clock.lap()
