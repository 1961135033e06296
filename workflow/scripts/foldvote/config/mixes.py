"""Mixes of the images of a batch."""

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field

from foldvote.config.base import Section, Share, each_named


class Mixed(Section):
    """A mix of two images of a batch, and of their targets."""

    p: Share = 1.0
    """Share of the batches that are mixed in this way."""
    partner: Literal["batch", "group"] = "batch"
    """What an image is mixed with: any image of the batch, or another one of its group, if the batch has one."""


class Mixup(Mixed):
    """Weighted mean of two images (Zhang et al., ICLR 2018)."""

    name: Literal["mixup"]
    alpha: float = Field(default=0.2, gt=0, le=10)
    """The weight is drawn from Beta(alpha, alpha)."""


class CutMix(Mixed):
    """A rectangle of another image (Yun et al., ICCV 2019)."""

    name: Literal["cutmix"]
    alpha: float = Field(default=1.0, gt=0, le=10)
    """The area is drawn from Beta(alpha, alpha)."""


class HalfFace(Mixed):
    """The right half of another image: half-face CutMix, which keeps both faces in place."""

    name: Literal["half_face"]


Mix = Annotated[Mixup | CutMix | HalfFace, Field(discriminator="name")]
Mixes = Annotated[list[Mix], BeforeValidator(each_named)]
