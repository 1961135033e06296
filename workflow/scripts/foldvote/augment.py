"""Random changes to training images. The only module that knows albumentations.

albumentations keeps a generator of its own, so that two loader workers repeat each other's draws and every epoch
repeats the first. Here the generator is set before each image from a counter-based seed, which makes the result a
function of that seed alone.
"""

import os
from collections.abc import Callable

os.environ["NO_ALBUMENTATIONS_UPDATE"] = "1"  # it would ask the network at import

import albumentations as A
import cv2
import numpy as np

from foldvote.sections import Augment

cv2.setNumThreads(0)  # OpenCV's threads after a fork can hang a loader


def augmenter(settings: Augment, height: int, width: int) -> Callable[[np.ndarray, int], np.ndarray]:
    """The function that changes one training image.

    Args:
        settings: the recipe's `augment` section.
        height: output height in pixels.
        width: output width in pixels.

    Returns:
        A function of an image (uint8, height x width x RGB, not written to) and a seed, giving an image of the same
        kind. Equal seeds give equal images.
    """
    steps: list[A.BasicTransform] = []
    if settings.crop:
        ratio = width / height
        steps.append(
            A.RandomResizedCrop(
                (height, width), scale=(1 - settings.crop, 1.0), ratio=(ratio * 0.9, ratio / 0.9), p=1.0
            )
        )
    if settings.hflip:
        steps.append(A.HorizontalFlip(p=settings.hflip))
    if settings.colour:
        strength = settings.colour
        steps.append(A.ColorJitter(strength, strength, strength, strength / 8, p=1.0))
    if not steps:
        return lambda image, _seed: image
    pipeline = A.Compose(steps)

    def change(image: np.ndarray, seed: int) -> np.ndarray:
        pipeline.set_random_seed(seed % 2**32)
        return pipeline(image=image)["image"]

    return change
