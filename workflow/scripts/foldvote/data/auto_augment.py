"""RandAugment, TrivialAugment and AugMix, as torchvision and timm have them.

They draw from the global generators of Python, numpy and torch. Here these are seeded before each image and put back
after it, so that the result depends on the seed alone and nothing else draws other numbers.
"""

import random
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
from PIL import Image, ImageOps

_IMAGENET_GREY = (124, 116, 104)  # what timm's training fills gaps with


def auto_augment(name: str, arguments: Mapping[str, Any], side: int) -> Callable[[np.ndarray, int], np.ndarray]:
    """Make the function that changes one image.

    Args:
        name: a class of torchvision, such as RandAugment, or a policy as timm writes it, such as rand-m9-mstd0.5-inc1.
        arguments: of the class of torchvision.
        side: shorter side of the images in pixels.

    Returns:
        A function of an image (uint8, height x width x RGB, not modified) and a seed below 2**32 that returns an image
        of the same shape and type. Equal seeds give equal images.
    """
    policy = _of_timm(name, side) if "-" in name else _of_torchvision(name, arguments)

    def change(image: np.ndarray, seed: int) -> np.ndarray:
        with _seeded(seed):
            return np.asarray(policy(Image.fromarray(image)))

    return change


# torchvision and timm take seconds to import, and few recipes name their policies.


def _of_torchvision(name: str, arguments: Mapping[str, Any]) -> Any:
    from torchvision.transforms import v2

    return getattr(v2, name)(**arguments)


def _of_timm(name: str, side: int) -> Any:
    from timm.data import auto_augment

    options = {"translate_const": int(side * 0.45), "img_mean": _IMAGENET_GREY}
    make = auto_augment.augment_and_mix_transform if name.startswith("augmix") else auto_augment.rand_augment_transform
    made = make(name, options)
    for step in made.ops:
        if step.aug_fn is auto_augment.posterize:  # timm asks for 0 bits at an extreme magnitude, which Pillow refuses
            step.aug_fn = _posterize
    return made


def _posterize(image: Image.Image, bits: int, **_: Any) -> Image.Image:
    return ImageOps.posterize(image, min(max(bits, 1), 8))


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    import torch

    before, numpys = random.getstate(), np.random.get_state()  # noqa: NPY002
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        np.random.seed(seed)  # noqa: NPY002
        random.seed(seed)
        try:
            yield
        finally:
            random.setstate(before)
            np.random.set_state(numpys)  # noqa: NPY002
