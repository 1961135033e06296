"""The detector of faces: YuNet (Wu et al., Machine Intelligence Research 2023), which OpenCV runs from an ONNX file."""

import math
from functools import cache
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np

INPUT_SIDE = 320  # larger images are shrunk to this longest side in pixels: as many masked faces, twice as fast
LEAST_SIDE = 10  # in pixels of the input: the smallest face of YuNet; narrower images give noise only
LEAST_CONFIDENCE = 0.2  # detections with a smaller confidence are dropped
_OVERLAP = 0.3  # non-maximum suppression: intersection over union above which the weaker detection is dropped
_MOST_DETECTIONS = 50


class Box(NamedTuple):
    """A face in pixels of the upright image; right and bottom are exclusive. The confidence is from 0 to 1."""

    left: float
    top: float
    right: float
    bottom: float
    confidence: float


def detect_face(image: np.ndarray, model: Path) -> Box | None:
    """Detect the face in a portrait: of several detections, the one with the largest confidence x area.

    Args:
        image: uint8 array of shape (height, width, 3), RGB.
        model: the detector's ONNX file.

    Returns:
        The box, clipped to the image; None if no face is found.
    """
    height, width = image.shape[:2]
    scale = min(INPUT_SIDE / max(height, width), 1.0)
    size = (max(round(width * scale), 1), max(round(height * scale), 1))
    if min(size) < LEAST_SIDE:
        return None
    small = cv2.resize(image, size, interpolation=cv2.INTER_AREA) if scale < 1 else image
    net = _net(model)
    net.setInputSize(size)
    found = net.detect(np.ascontiguousarray(small[..., ::-1]))[1]  # its input is BGR
    found = np.zeros((0, 15), np.float32) if found is None else found[np.isfinite(found).all(axis=1)]
    if not len(found):
        return None
    stretch = np.tile(np.divide((width, height), size), 2)
    boxes = np.clip(np.hstack([found[:, :2], found[:, :2] + found[:, 2:4]]) * stretch, 0, (width, height) * 2)
    weight = found[:, 14] * np.prod(boxes[:, 2:] - boxes[:, :2], axis=1)
    best = int(np.argmax(weight))
    if weight[best] <= 0:
        return None
    left, top, right, bottom = boxes[best].tolist()
    return Box(left, top, right, bottom, float(np.clip(found[best, 14], 0, 1)))


def confident_region(box: Box | None, min_confidence: float) -> tuple[float, float, float, float] | None:
    """The region of a face that is cropped, in float32 as the table of boxes keeps it; None if it is too uncertain.

    Args:
        box: a detection; sides that are NaN are none.
        min_confidence: the least confidence at which it is used.
    """
    if box is None or not all(map(math.isfinite, box)) or np.float32(box.confidence) < np.float32(min_confidence):
        return None
    left, top, right, bottom = (float(np.float32(side)) for side in box[:4])
    return left, top, right, bottom


@cache
def _net(path: Path) -> cv2.FaceDetectorYN:
    return cv2.FaceDetectorYN.create(
        str(path),
        "",
        (INPUT_SIDE, INPUT_SIDE),
        score_threshold=LEAST_CONFIDENCE,
        nms_threshold=_OVERLAP,
        top_k=_MOST_DETECTIONS,
    )
