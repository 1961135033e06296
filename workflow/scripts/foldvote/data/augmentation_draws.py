"""What is drawn for training images that are augmented in whole batches, on the device that trains.

The draws of an image depend on its seed alone, and those of its steps not on each other. Their distributions are those
of the same short steps in foldvote.data.augmentation.
"""

from collections.abc import Callable, Sequence

import numpy as np

from foldvote.config.augment import AugmentStep, expanded

_TRIES = 10  # to find a crop that fits, as albumentations


def draw_changes(
    steps: Sequence[AugmentStep], seeds: Sequence[int], height: int, width: int
) -> list[tuple[str, np.ndarray]]:
    """Draw how the images of a batch are changed.

    Args:
        steps: the recipe's `augment`, of steps that config.augment.DEVICE_STEPS names.
        seeds: of the images, below 2**63.
        height: of the images in pixels.
        width: of the images in pixels.

    Returns:
        Kinds of changes in the order in which they come, each with its numbers, float32:
        - geometry (images, 2, 3): the place in the image, from -1 to 1 across and down, that each place of the result
          comes from, as a matrix; consecutive flips, crops and turns are one of them;
        - colour (images, 4): factors of brightness, contrast and saturation, and the shift of the hue in turns;
        - erase (images, 5): top, bottom, left and right of a rectangle in pixels, which is empty where nothing is
          erased, and a whole number below 2**24 that noise is drawn by.
    """
    whole = expanded(steps)
    drawn = np.empty((len(seeds), sum(_UNIFORMS[step.name] for step in whole)))
    for row, seed in zip(drawn, seeds, strict=True):
        np.random.Generator(np.random.Philox(seed)).random(out=row)
    changes: list[tuple[str, np.ndarray]] = []
    for step in whole:
        uniforms, drawn = np.split(drawn, [_UNIFORMS[step.name]], axis=1)
        kind, draw = _DRAW[step.name]
        numbers = draw(uniforms, step.strength or 0.0, height, width)
        if kind == "geometry" and changes and changes[-1][0] == kind:
            numbers = changes.pop()[1] @ numbers
        changes.append((kind, numbers))
    return [(kind, (own[:, :2] if kind == "geometry" else own).astype(np.float32)) for kind, own in changes]


def _hflip(uniforms: np.ndarray, chance: float, _height: int, _width: int) -> np.ndarray:
    return _matrices(len(uniforms), {(0, 0): np.where(uniforms[:, 0] < chance, -1, 1)})


def _crop(uniforms: np.ndarray, most: float, height: int, width: int) -> np.ndarray:
    """The first of several crops that fits, or the whole image."""
    areas = height * width * (1 - min(most, 0.99) * uniforms[:, :_TRIES])
    ratios = width / height * 0.9 ** (2 * uniforms[:, _TRIES : 2 * _TRIES] - 1)
    widths, heights = np.rint(np.sqrt(areas * ratios)), np.rint(np.sqrt(areas / ratios))
    fits = (widths >= 1) & (widths <= width) & (heights >= 1) & (heights <= height)
    first = np.arange(len(fits)), fits.argmax(axis=1)
    own_width = np.where(fits[first], widths[first], width)
    own_height = np.where(fits[first], heights[first], height)
    left = np.floor(uniforms[:, -2] * (width - own_width + 1))
    top = np.floor(uniforms[:, -1] * (height - own_height + 1))
    across = {(0, 0): own_width / width, (0, 2): (2 * left + own_width) / width - 1}
    return _matrices(len(uniforms), across | {(1, 1): own_height / height, (1, 2): (2 * top + own_height) / height - 1})


def _rotate(uniforms: np.ndarray, most: float, height: int, width: int) -> np.ndarray:
    angles = np.pi * most * (2 * uniforms[:, 0] - 1)
    cosines, sines = np.cos(angles), np.sin(angles)
    turned = {(0, 1): -sines * height / width, (1, 0): sines * width / height}
    return _matrices(len(uniforms), turned | {(0, 0): cosines, (1, 1): cosines})


def _colour(uniforms: np.ndarray, strength: float, _height: int, _width: int) -> np.ndarray:
    return (2 * uniforms - 1) * strength * [1, 1, 1, 1 / 8] + [1, 1, 1, 0]


def _erase(uniforms: np.ndarray, chance: float, height: int, width: int) -> np.ndarray:
    """A rectangle of 2 to 20 % of the image, 0.3 to 3.3 times as wide as high, as far as it fits."""
    smallest, largest = 0.02 * height * width, min(0.2 * height * width, 0.3 * height**2, width**2 / 3.3)
    areas = smallest + (largest - smallest) * uniforms[:, 1]
    narrowest, widest = np.maximum(0.3, areas / height**2), np.minimum(3.3, width**2 / areas)
    ratios = narrowest + (widest - narrowest) * uniforms[:, 2]
    own_height, own_width = np.rint(np.sqrt(areas / ratios)), np.rint(np.sqrt(areas * ratios))
    top = np.floor(uniforms[:, 3] * (height - own_height + 1))
    left = np.floor(uniforms[:, 4] * (width - own_width + 1))
    erased = (uniforms[:, 0] < chance) & (smallest <= largest)
    bottom, right = top + own_height * erased, left + own_width * erased
    return np.stack([top, bottom, left, right, np.floor(uniforms[:, 5] * 2**24)], axis=1)


def _matrices(count: int, entries: dict[tuple[int, int], np.ndarray]) -> np.ndarray:
    """Identity matrices (count, 3, 3) with some entries replaced."""
    matrices = np.tile(np.eye(3), (count, 1, 1))
    for (row, column), values in entries.items():
        matrices[:, row, column] = values
    return matrices


_DRAW: dict[str, tuple[str, Callable[[np.ndarray, float, int, int], np.ndarray]]] = {
    "hflip": ("geometry", _hflip),
    "crop": ("geometry", _crop),
    "rotate": ("geometry", _rotate),
    "colour": ("colour", _colour),
    "erase": ("erase", _erase),
}
_UNIFORMS = {"hflip": 1, "crop": 2 * _TRIES + 2, "rotate": 1, "colour": 4, "erase": 6}  # numbers drawn for an image
