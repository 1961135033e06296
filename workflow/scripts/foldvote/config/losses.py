"""Terms of the training loss."""

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field

from foldvote.config.base import Section, each_named
from foldvote.config.first_round import Several


class LossTerm(Section):
    """One term of the training loss."""

    weight: float = Field(default=1.0, gt=0)
    """Factor of this term in the sum."""


class CrossEntropy(LossTerm):
    """Cross-entropy."""

    name: Literal["cross_entropy"]


class Focal(LossTerm):
    """Focal loss: easy images count less (Lin et al., ICCV 2017)."""

    name: Literal["focal"]
    gamma: float = Field(default=2.0, ge=0, le=10)
    """How much less easy images count; 0 is cross-entropy."""


class SoftF1(LossTerm):
    """One minus the macro-F1 that is computed from the probabilities of a batch."""

    name: Literal["soft_f1"]


class Asymmetric(LossTerm):
    """Asymmetric focusing of positives and negatives, single-label form (Ridnik et al., ICCV 2021)."""

    name: Literal["asymmetric"]
    gamma_positive: float = Field(default=0.0, ge=0, le=10)
    """Focusing parameter of the true class."""
    gamma_negative: float = Field(default=4.0, ge=0, le=10)
    """Focusing parameter of the other classes."""


class Ldam(LossTerm):
    """Label-distribution-aware margin: the rarer a class, the wider its margin (Cao et al., NeurIPS 2019)."""

    name: Literal["ldam"]
    margin: float = Field(default=0.5, gt=0, le=5)
    """Margin of the rarest class, on the logits."""


class OfFactors(LossTerm):
    """A term on some factors, that compares the images of a batch."""

    factors: Several | None = None
    """The factors that it is about, such as [gender, age]; null: the class."""


class Consistency(OfFactors):
    """The images of a group agree: divergence of each prediction from the mean of its group in the batch."""

    name: Literal["consistency"]


class SupCon(OfFactors):
    """Supervised contrastive loss: the features of a class lie together (Khosla et al., NeurIPS 2020)."""

    name: Literal["sup_con"]
    temperature: float = Field(default=0.1, ge=0.01, le=10)
    """The lower, the more the nearest images of other classes count."""


LabelLoss = CrossEntropy | Focal | SoftF1 | Asymmetric | Ldam
Loss = Annotated[LabelLoss | Consistency | SupCon, Field(discriminator="name")]
Losses = Annotated[list[Loss], BeforeValidator(each_named), Field(min_length=1)]
