"""The key `augment` of a recipe: which steps change training images, in what order.

What the steps do is in foldvote.data.augmentation; whether their names exist is checked by
foldvote.config.augmentation_names.
"""

from typing import Annotated, Any

from pydantic import BeforeValidator, Field

from foldvote.config.base import Section

POLICIES = ("none", "base", "custom", "light", "medium", "heavy")
SHORT_STEPS = ("hflip", "crop", "colour", "erase", "clahe")
_OF_ALL = ("interpolation", "fill", "p")
AUTO_AUGMENTS = {
    "RandAugment": ("num_ops", "magnitude", "num_magnitude_bins", *_OF_ALL),
    "TrivialAugmentWide": ("num_magnitude_bins", *_OF_ALL),
    "AugMix": ("severity", "mixture_width", "chain_depth", "alpha", "all_ops", *_OF_ALL),
}
"""Automatic augmentation of torchvision (Cubuk et al., 2020; Müller & Hutter, 2021; Hendrycks et al., 2020), and the
names of arguments."""


class AugmentStep(Section):
    """One step of the augmentation: a policy, a short step with its strength, or a transform with its arguments."""

    name: str
    """A policy, a short step, a transform of albumentations, automatic augmentation of torchvision (RandAugment,
    TrivialAugmentWide, AugMix), or as timm writes it (rand-m9-mstd0.5-inc1, augmix-m3-w3)."""
    strength: float | None = Field(default=None, ge=0, le=1)
    """Of a short step: a probability (hflip, erase, clahe), the largest area removed (crop), a strength (colour)."""
    arguments: dict[str, Any] | None = None
    """Arguments of a transform; empty: its defaults."""

    @property
    def automatic(self) -> bool:
        """Whether this is automatic augmentation, of torchvision or as timm writes it."""
        return self.name in AUTO_AUGMENTS or self.name.startswith(("rand-", "augmix-"))


def _steps(value: Any) -> Any:
    """A policy's name, a mapping, or a list of both, as a list of steps: order matters, and a list keeps it."""
    parts = value if isinstance(value, list) else [value]
    return [step for part in parts for step in _steps_of(part)]


def _steps_of(part: Any) -> list[Any]:
    """One part as steps: a name alone, a step in its full form, or a mapping of names to strengths or arguments."""
    if isinstance(part, str):
        return [{"name": part}]
    if not isinstance(part, dict) or {"name", "strength"} <= set(part):
        return [part]
    return [
        {"name": name, "arguments": given or {}}
        if isinstance(given, dict | None)
        else {"name": name, "strength": given}
        for name, given in part.items()
    ]


Augment = Annotated[list[AugmentStep], BeforeValidator(_steps)]
DEFAULT_AUGMENT = [{"crop": 0.15}, {"hflip": 0.5}, {"colour": 0.2}]
