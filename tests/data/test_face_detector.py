"""The face that is cropped, as the table of boxes would keep it."""

import math

import numpy as np

from foldvote.data.face_detector import Box, confident_region


def test_sides_and_confidence_count_as_the_table_keeps_them_in_32_bits() -> None:
    box = Box(0.1, 1.3, 20.7, 31.9, 0.7)
    region = confident_region(box, 0.7)
    assert region == tuple(np.array(box[:4], np.float32).astype(np.float64))
    assert region != box[:4]
    assert confident_region(box, 0.70001) is None
    assert confident_region(None, 0.0) is None
    assert confident_region(Box(math.nan, math.nan, math.nan, math.nan, 0.0), 0.0) is None
