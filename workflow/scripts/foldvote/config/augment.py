"""The key `augment` of a recipe: which steps change training images, in what order.

What the steps do is in foldvote.data.augmentation, and on a device in foldvote.training.device_augmentation; whether
their names exist is checked by foldvote.config.augmentation_names.
"""

from collections.abc import Sequence
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, TypeAdapter

from foldvote.config.base import Section

_OF_ALL = ("interpolation", "fill", "p")
AUTO_AUGMENTS = {
    "RandAugment": ("num_ops", "magnitude", "num_magnitude_bins", *_OF_ALL),
    "TrivialAugmentWide": ("num_magnitude_bins", *_OF_ALL),
    "AugMix": ("severity", "mixture_width", "chain_depth", "alpha", "all_ops", *_OF_ALL),
}
"""Automatic augmentation of torchvision (Cubuk et al., 2020; Müller & Hutter, 2021; Hendrycks et al., 2020), and the
names of arguments."""
SHORT_STEPS = ("hflip", "crop", "rotate", "colour", "erase", "clahe")
DEVICE_STEPS = SHORT_STEPS[:5]  # that a device does to a whole batch
_REFLECT = 4  # OpenCV's BORDER_REFLECT_101
POLICY_STEPS: dict[str, list[Any]] = {
    "none": [],
    # Resizing and normalising only, which every image gets.
    "base": [],
    # The mask competition's baseline: the centre 320x256 of 512x384 enlarged to the whole, jitter, and noise of one
    # standard deviation of its normalised images. As there, validation has no crop: see above.
    "custom": [
        {"Affine": {"scale": {"x": [1.5, 1.5], "y": [1.6, 1.6]}, "p": 1}},
        {"colour": 0.1},
        {"GaussNoise": {"std_range": [0.24, 0.24], "p": 1}},
    ],
    "light": [
        {"hflip": 0.5},
        {"crop": 0.1},
        {"colour": 0.1},
    ],
    "medium": [
        {"hflip": 0.5},
        {"crop": 0.2},
        {"Affine": {"rotate": [-8, 8], "translate_percent": [-0.04, 0.04], "border_mode": _REFLECT, "p": 0.5}},
        {"colour": 0.2},
        {"GaussianBlur": {"sigma_limit": [0.3, 1.0], "p": 0.1}},
        {"erase": 0.1},
    ],
    "heavy": [
        {"hflip": 0.5},
        {"crop": 0.3},
        {
            "Affine": {
                "rotate": [-15, 15],
                "translate_percent": [-0.06, 0.06],
                "shear": [-5, 5],
                "border_mode": _REFLECT,
                "p": 0.7,
            }
        },
        {"colour": 0.3},
        {"ToGray": {"p": 0.05}},
        {"clahe": 0.1},
        {"GaussianBlur": {"sigma_limit": [0.3, 1.5], "p": 0.15}},
        {"GaussNoise": {"std_range": [0.01, 0.05], "p": 0.2}},
        {"erase": 0.25},
    ],
}
"""The steps of each policy, as they would be written in a recipe."""
POLICIES = tuple(POLICY_STEPS)


class AugmentStep(Section):
    """One step of the augmentation: a policy, a short step with its strength, or a transform with its arguments."""

    name: str
    """A policy, a short step, a transform of albumentations, automatic augmentation of torchvision (RandAugment,
    TrivialAugmentWide, AugMix), or as timm writes it (rand-m9-mstd0.5-inc1, augmix-m3-w3)."""
    strength: float | None = Field(default=None, ge=0, le=1)
    """Of a short step: a probability (hflip, erase, clahe), the largest area removed (crop), the largest turn in half
    turns (rotate), a strength (colour)."""
    arguments: dict[str, Any] | None = None
    """Arguments of a transform; empty: its defaults."""

    @property
    def automatic(self) -> bool:
        """Whether this is automatic augmentation, of torchvision or as timm writes it."""
        return self.name in AUTO_AUGMENTS or self.name.startswith(("rand-", "augmix-"))


def _steps(value: Any) -> Any:
    """A policy's name, a mapping, or a list of both, as a list of steps: order matters, and a list keeps it."""
    parts = value if isinstance(value, list) else [value]
    if faults := [fault for part in parts if isinstance(part, dict) for fault in _strength_faults(part)]:
        raise ValueError("\n".join(faults))
    return [step for part in parts for step in _steps_of(part)]


def _strength_faults(part: dict[Any, Any]) -> list[str]:
    """Short steps in a mapping of names whose strengths are none: of the list of steps, nobody has written the keys."""
    strengths = {name: part[name] for name in SHORT_STEPS if name in part and not isinstance(part[name], dict | None)}
    return [
        f"{name}: its strength must be a number from 0 to 1 (it is {given!r})"
        for name, given in strengths.items()
        if isinstance(given, bool) or not isinstance(given, int | float) or not 0 <= given <= 1
    ]


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


def expanded(steps: Sequence[AugmentStep]) -> list[AugmentStep]:
    """Replace every policy by its steps, and drop short steps of strength 0."""
    found: list[AugmentStep] = []
    for step in steps:
        if step.name in POLICY_STEPS:
            found += expanded(TypeAdapter(Augment).validate_python(POLICY_STEPS[step.name]))
        elif step.strength != 0:
            found.append(step)
    return found
