"""Images that are refused, and noisy ones whose files have a long scan."""

import numpy as np
import pytest

from foldvote.config.data import Images
from foldvote.data.image_decoding import BadImage, decode
from support.data_folders import picture

RULES = Images()
TAIL = Images(tolerate_tail=True)


def refused(data: bytes, rules: Images = RULES) -> BadImage:
    with pytest.raises(BadImage) as caught:
        decode(data, rules)
    return caught.value


def noisy(height: int = 96, width: int = 80) -> np.ndarray:
    noise = np.random.default_rng(5).integers(-40, 40, (height, width, 3))
    return np.clip(picture(height, width) + noise, 0, 255).astype(np.uint8)


def scan_of(data: bytes) -> tuple[int, int]:
    return data.rindex(b"\xff\xda") + 14, len(data) - 2
