"""Augmentation of training images with albumentations, which no other module imports.

albumentations has its own random generator: with several loader workers, draws would repeat across workers and epochs.
Here it is seeded before each image with a counter-based seed, so that the result depends on this seed only.

Validation and prediction use no augmentation. A step that changes every image in the same way, such as `clahe: 1` or a
centre crop, would therefore make training images different from validation images. A change of all images belongs
before the augmentation: `roi: centre-HxW` crops the centre of training, validation and test images.

Images may be packed larger than the network takes them (a recipe's `pack`). The first crop then cuts from the larger
image, and the steps before it see that one; without a crop, all steps see images that were resized before.
"""

import os
import warnings
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

os.environ["NO_ALBUMENTATIONS_UPDATE"] = "1"  # otherwise it looks for updates on the network at import

import albumentations as A
import cv2
import numpy as np
from pydantic import ValidationError

from foldvote.config.augment import AugmentStep, expanded
from foldvote.config.augmentation_names import transform_faults
from foldvote.data.auto_augment import auto_augment
from foldvote.data.cropping import resize

cv2.setNumThreads(0)  # after a fork, OpenCV's threads can hang a data loader

Change = Callable[[np.ndarray, int], np.ndarray]

_CROPS = ("crop", "Crop", "CenterCrop", "RandomCrop", "RandomSizedCrop", "RandomResizedCrop")  # cut from a larger image
_TRIES = 8  # images of a check; a step that fails on half of all images is missed once in 256 checks


def augmenter(steps: Sequence[AugmentStep], height: int, width: int, packed: tuple[int, int] | None = None) -> Change:
    """Make the function that augments one training image.

    Args:
        steps: the recipe's `augment` section.
        height: output height in pixels.
        width: output width in pixels.
        packed: height and width of the images that it is given; None: those of the output.

    Returns:
        A function of an image (uint8, height x width x RGB, not modified) and a seed that returns an image of the
        output's shape and the same type. Equal seeds give equal images. Without any step it returns the image itself,
        or resized where it is packed larger.

    Raises:
        ValueError: if the arguments of a step are wrong; `check_steps` finds this before.
    """
    whole = expanded(steps)
    return _resized_first(whole, _composed(_transforms(whole, height, width)), (height, width), packed)


def check_steps(
    steps: Sequence[AugmentStep], height: int, width: int, packed: tuple[int, int] | None = None
) -> list[str]:
    """Check an augmentation: its names, its arguments, and its result on an image.

    Args:
        steps: the recipe's `augment` section.
        height: height of the result in pixels.
        width: width of the result in pixels.
        packed: height and width of the images that are augmented; None: those of the result.

    Returns:
        One line for each error, such as "CLAHE: tile_grid_size: ...". None if each step can be made, and all together
        turn uint8 images into uint8 images (height, width, 3), with equal results for equal seeds.
    """
    if faults := transform_faults(steps):
        return faults
    whole = expanded(steps)
    made = [_try(step, partial(_transform, step, height, width)) for step in whole]
    if faults := [made_one for made_one in made if isinstance(made_one, str)]:
        return faults
    if not whole or _pipeline_fault(whole, (height, width), packed) is None:
        return []
    # The last step of the shortest failing prefix is the one that is wrong.
    for count in range(1, len(whole) + 1):
        if (fault := _pipeline_fault(whole[:count], (height, width), packed)) is not None:
            return [fault]
    return []


def _resized_first(
    steps: Sequence[AugmentStep], change: Change, shape: tuple[int, int], packed: tuple[int, int] | None
) -> Change:
    """A change of images that are packed larger: they are resized before it, unless one of its steps is a crop."""
    if packed in (None, shape) or any(step.name in _CROPS for step in steps):
        return change
    return lambda image, seed: change(resize(image, *shape), seed)


def _composed(transforms: list[A.BasicTransform]) -> Change:
    if not transforms:
        return lambda image, _seed: image
    pipeline = A.Compose(transforms)

    def change(image: np.ndarray, seed: int) -> np.ndarray:
        # Compose.set_random_seed gives all steps one seed, so that they draw alike: each erased image a mirrored one.
        for transform, own in zip(transforms, step_seeds(seed, len(transforms)), strict=True):
            transform.set_random_seed(own)
        return pipeline(image=image)["image"]

    return change


def step_seeds(seed: int, steps: int) -> list[int]:
    """A seed for each step of a pipeline, by numpy's SeedSequence: as good as independent of each other."""
    return np.random.SeedSequence(seed).generate_state(steps).tolist()


# --- short steps


def _transform(step: AugmentStep, height: int, width: int) -> A.BasicTransform:
    if step.strength is not None:
        return _SHORT[step.name](step.strength, height, width)
    if step.automatic:
        arguments = dict(step.arguments or {})
        share = arguments.pop("p", 1.0)
        return _Automatic(auto_augment(step.name, arguments, min(height, width)), share)
    return getattr(A, step.name)(**(step.arguments or {}))


def _hflip(chance: float, _height: int, _width: int) -> A.BasicTransform:
    return A.HorizontalFlip(p=chance)


class _Crop(A.RandomResizedCrop):
    """A crop that is resized as packed images are where it has more pixels than are wanted.

    Albumentations interpolates between single pixels of a larger crop instead of averaging all.
    """

    def apply(self, img: np.ndarray, crop_coords: tuple[int, int, int, int], **params: Any) -> np.ndarray:
        """The crop of one image, uint8 of the wanted size."""
        left, top, right, bottom = crop_coords
        if bottom - top >= self.size[0] and right - left >= self.size[1]:
            return resize(img[top:bottom, left:right], *self.size)
        return super().apply(img, crop_coords, **params)


def _crop(most: float, height: int, width: int) -> A.BasicTransform:
    """A crop of nearly the same aspect ratio; at most a share `most` of the area is removed."""
    ratio = width / height
    return _Crop((height, width), scale=(max(1 - most, 0.01), 1.0), ratio=(ratio * 0.9, ratio / 0.9), p=1.0)


def _rotate(most: float, _height: int, _width: int) -> A.BasicTransform:
    """A turn by at most `most` half turns; what is missing at the borders is mirrored."""
    return A.Rotate(180 * most, border_mode=cv2.BORDER_REFLECT, p=1.0)


def _colour(strength: float, _height: int, _width: int) -> A.BasicTransform:
    return A.ColorJitter(strength, strength, strength, strength / 8, p=1.0)


def _erase(chance: float, _height: int, _width: int) -> A.BasicTransform:
    """Noise in place of a rectangle (random erasing, Zhong et al., AAAI 2020), smaller than there."""
    return A.Erasing(scale=(0.02, 0.2), ratio=(0.3, 3.3), fill="random", p=chance)


def _clahe(chance: float, _height: int, _width: int) -> A.BasicTransform:
    """Contrast equalised in tiles (CLAHE, Zuiderveld, Graphics Gems IV, 1994)."""
    return A.CLAHE(clip_limit=(1.0, 4.0), tile_grid_size=(8, 8), p=chance)


_SHORT: dict[str, Callable[[float, int, int], A.BasicTransform]] = {
    "hflip": _hflip,
    "crop": _crop,
    "rotate": _rotate,
    "colour": _colour,
    "erase": _erase,
    "clahe": _clahe,
}


class _Automatic(A.ImageOnlyTransform):
    """Automatic augmentation as a step of the pipeline, which draws its seed."""

    def __init__(self, change: Change, p: float) -> None:
        super().__init__(p=p)
        self.change = change

    def get_params(self) -> dict[str, Any]:
        return {"seed": self.py_random.getrandbits(32)}

    def apply(self, img: np.ndarray, seed: int, **_: Any) -> np.ndarray:
        return self.change(img, seed)


# --- checks


def _try(step: AugmentStep, make: Callable[[], Any]) -> Any:
    """The result of `make`, or a line about the error if it raises or albumentations warns."""
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        try:
            made = make()
        except Exception as error:  # whatever a transform raises is about its arguments or this image
            return f"{step.name}: {_one_line(error)}"
    messages = [warning.message for warning in warned if issubclass(warning.category, UserWarning)]
    return f"{step.name}: {_one_line(messages[0])}" if messages else made


def _pipeline_fault(steps: Sequence[AugmentStep], shape: tuple[int, int], packed: tuple[int, int] | None) -> str | None:
    """What is wrong with the steps together, named after the last one: as given, then with all probabilities 1."""
    for certain in (False, True):
        fault = _try(steps[-1], partial(_image_fault, steps, shape, packed, certain))
        if fault is not None:
            return fault
    return None


def _image_fault(
    steps: Sequence[AugmentStep], shape: tuple[int, int], packed: tuple[int, int] | None, certain: bool
) -> str | None:
    changes = [
        _resized_first(steps, _composed(_transforms(steps, *shape, certain=certain)), shape, packed) for _ in range(2)
    ]
    for seed in range(_TRIES):
        image = np.random.Generator(np.random.Philox(seed)).integers(0, 256, (*(packed or shape), 3), dtype=np.uint8)
        image.flags.writeable = False  # as packed images are
        first, again = (change(image, seed) for change in changes)
        if not isinstance(first, np.ndarray) or first.dtype != np.uint8:
            kind = f"a {first.dtype} array" if isinstance(first, np.ndarray) else f"a {type(first).__name__}"
            return f"{steps[-1].name}: gives {kind}, not a uint8 array; leave it out: normalising comes by itself"
        if first.shape != (*shape, 3):
            size, needed = ("x".join(map(str, sides)) for sides in (first.shape, (*shape, 3)))
            return f"{steps[-1].name}: gives images of {size}; all must stay {needed} (height x width x colours)"
        if not np.array_equal(first, again):
            return f"{steps[-1].name}: gives two images for one seed; leave it out"
    return None


def _transforms(
    steps: Sequence[AugmentStep], height: int, width: int, *, certain: bool = False
) -> list[A.BasicTransform]:
    transforms = [_transform(step, height, width) for step in steps]
    for transform in transforms if certain else ():
        transform.p = 1.0
    return transforms


def _one_line(error: Any) -> str:
    """The message of an exception or a warning in one short line; for pydantic without its web addresses."""
    cause = getattr(error, "__cause__", None)
    if isinstance(cause, ValidationError):
        places = ([*map(str, fault["loc"][:1]), fault["msg"].removeprefix("Value error, ")] for fault in cause.errors())
        text = "; ".join(": ".join(place) for place in places)
    elif isinstance(error, KeyError):
        text = f"needs {error}, which an image alone does not have"
    else:
        text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 200 else f"{text[:197]}..."
