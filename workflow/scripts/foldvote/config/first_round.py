"""How a model learns from what other models predict: pseudo-labels, and distillation."""

from typing import Annotated

from pydantic import AfterValidator, Field

from foldvote.config.base import Name, Section, different

Several = Annotated[list[Name], Field(min_length=1), AfterValidator(different)]


class Pseudo(Section):
    """Pseudo-labels: in a second round, a model also learns from test images that a first round is confident about."""

    models: Several
    """Models of the first round, whose mean prediction gives the labels; fold k uses their members of fold k only."""
    confidence: float = Field(default=0.9, gt=0, le=1)
    """Smallest probability of the most likely class for which a test image is used, as a share of what the label
    smoothing of the first round leaves: with 0.1, no image is likelier than 0.9 to be of a class."""


class Distill(Section):
    """Distillation: a student learns to predict what its teachers predict, beside the labels."""

    models: Several
    """The teachers: models of whole classes, whose mean prediction is learnt; fold k is taught by their members of
    fold k only."""
    temperature: float = Field(default=2.0, ge=1, le=100)
    """Softens the predictions of both sides before they are compared: probabilities to the power of 1 / temperature."""
    weight: float = Field(default=0.5, gt=0, le=1)
    """Share of the teachers in the loss; the rest is the loss on the labels."""
    test_images: bool = False
    """Learn from the teachers' predictions of all test images too, which need no labels."""
