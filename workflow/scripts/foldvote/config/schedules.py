"""Schedules of the learning rate."""

from typing import Annotated, Literal

from pydantic import Field

from foldvote.config.base import Section, Share


class Cosine(Section):
    """Half a cosine, from the peak down to `floor` times the peak (Loshchilov & Hutter, ICLR 2017)."""

    name: Literal["cosine"]
    floor: Share = 0.01
    """Last learning rate as a share of the peak."""


class Step(Section):
    """Multiplied by `gamma` after every `every` epochs."""

    name: Literal["step"]
    every: float = Field(default=20, gt=0)
    """Epochs between two drops."""
    gamma: float = Field(default=0.5, gt=0, lt=1)
    """Factor of each drop."""


class Plateau(Section):
    """Multiplied by `gamma` when `best_by` has not improved for `patience` epochs."""

    name: Literal["plateau"]
    patience: int = Field(default=2, ge=1)
    """Epochs without improvement before a drop."""
    gamma: float = Field(default=0.3, gt=0, lt=1)
    """Factor of each drop."""


class OneCycle(Section):
    """One rise and one fall along cosines (Smith & Topin, 2018), of the learning rate only. The rise is the warm-up."""

    name: Literal["one_cycle"]
    rise: float = Field(default=0.3, gt=0, lt=1)
    """Share of the steps in which it rises."""
    start: float = Field(default=0.04, gt=0, lt=1)
    """First learning rate as a share of the peak."""
    floor: Share = 1e-4
    """Last learning rate as a share of the peak."""


class Polynomial(Section):
    """The peak times (1 - progress) to the power of `power`."""

    name: Literal["polynomial"]
    power: float = Field(default=1.0, gt=0, le=10)
    """1 is a straight line."""


class Constant(Section):
    """The peak throughout."""

    name: Literal["constant"]


Schedule = Annotated[Cosine | Step | Plateau | OneCycle | Polynomial | Constant, Field(discriminator="name")]
