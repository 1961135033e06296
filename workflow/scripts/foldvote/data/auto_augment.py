"""RandAugment, TrivialAugment, AugMix and AutoAugment, as torchvision and timm have them.

They draw from the global generators of Python, numpy and torch. Here these are seeded before each image and put back
after it, so that the result depends on the seed alone and nothing else draws other numbers.
"""

import random
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import albumentations as A
import numpy as np
from PIL import Image, ImageOps

_IMAGENET_GREY = (124, 116, 104)  # what timm's training fills gaps with


class AutoAugment(A.ImageOnlyTransform):
    """A policy of torchvision or timm as a transform of albumentations.

    Args:
        name: a class of torchvision, such as RandAugment, or a policy as timm writes it, such as rand-m9-mstd0.5-inc1.
        arguments: of the class of torchvision.
        side: shorter side of the images in pixels.
        p: share of the images that are changed.
    """

    def __init__(self, name: str, arguments: Mapping[str, Any], side: int, p: float = 1.0) -> None:
        super().__init__(p=p)
        self.change = _of_timm(name, side) if "-" in name else _of_torchvision(name, arguments)

    def get_params(self) -> dict[str, Any]:
        """The seed of one image, drawn by the pipeline that was seeded for this image."""
        return {"seed": self.py_random.getrandbits(32)}

    def apply(self, img: np.ndarray, seed: int, **_: Any) -> np.ndarray:
        """Change one image, uint8 (height, width, 3)."""
        with _seeded(seed):
            return np.asarray(self.change(Image.fromarray(img)))


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
