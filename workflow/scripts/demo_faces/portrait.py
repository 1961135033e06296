"""Drawing of one picture: a person, a visit and a shot give an RGB array.

Drawing units are halves of the face's height: (0, 0) lies between the eyes' lower lids, the chin at y = 1.
"""

import cv2
import numpy as np

from demo_faces.brush import Brush, Frame, smooth
from demo_faces.faces import LONG, Person, Shot, Visit
from demo_faces.features import beard, eyes, mouth, nose, outline, shading, years
from demo_faces.hair import back_hair, front_hair
from demo_faces.worn import ears, glasses, mask, neck, shoulders

CANVAS_HEIGHT = 320  # pixels; a smaller picture is drawn at this height and scaled down


def paint(person: Person, visit: Visit, shot: Shot, height: int, width: int) -> np.ndarray:
    """Draw one picture.

    Args:
        person: the face.
        visit: clothes and backdrop.
        shot: pose, light and mask.
        height: height of the picture in pixels.
        width: width of the picture in pixels.

    Returns:
        uint8 array of shape (height, width, 3), RGB; equal arguments give equal pixels.
    """
    finer = max(1.0, CANVAS_HEIGHT / height)
    tall, wide = round(height * finer), round(width * finer)
    unit = 0.232 * min(tall, wide / 0.75)
    centre = (wide / 2 + shot.shift[0] * unit, tall * 0.485 + shot.shift[1] * unit)
    body = Frame(centre, unit * shot.scale)
    head = Frame(centre, unit * shot.scale, shot.tilt, (0.0, 1.25), shot.turn)
    brush = Brush(_backdrop(visit, tall, wide), body)
    shoulders(brush, person, visit)
    brush.frame = head
    if person.hair in LONG:
        back_hair(brush, person)
    neck(brush, person, visit)
    ears(brush, person)
    skull = smooth(outline(person))
    brush.fill(skull, person.skin)
    face = brush.cover(skull)
    shading(brush, person, shot, face)
    eyes(brush, person, shot)
    nose(brush, person)
    mouth(brush, person, shot)
    years(brush, person, face)
    beard(brush, person, face)
    front_hair(brush, person, face)
    if shot.wearing != "not-wear":
        mask(brush, person, shot)
    if person.glasses != "none":
        glasses(brush, person)
    return _developed(brush.image, shot, height, width)


def _backdrop(visit: Visit, tall: int, wide: int) -> np.ndarray:
    small_tall, small_wide = 40, 30
    y, x = np.mgrid[0:small_tall, 0:small_wide]
    y, x = (y + 0.5) / small_tall, (x + 0.5) / small_wide
    top, low = np.asarray(visit.backdrop), np.asarray(visit.backdrop_low)
    small = top + (low - top) * (y**1.3)[..., None]
    for centre_x, centre_y, radius, gain in visit.blobs:
        small += gain * np.exp(-((x - centre_x) ** 2 + (0.75 * (y - centre_y)) ** 2) / (2 * radius**2))[..., None]
    small += 16 * np.exp(-((x - 0.5) ** 2 + (y - 0.45) ** 2) / 0.12)[..., None]
    large = cv2.resize(small.astype(np.float32), (wide, tall), interpolation=cv2.INTER_CUBIC)
    return np.ascontiguousarray(large.transpose(2, 0, 1))


def _developed(image: np.ndarray, shot: Shot, height: int, width: int) -> np.ndarray:
    """Scale the picture down, and add the light and grain of the shot."""
    planes = [cv2.resize(plane, (width, height), interpolation=cv2.INTER_AREA) for plane in image]
    picture = np.stack(planes, axis=2)
    side = np.linspace(-1, 1, width, dtype=np.float32)[None, :, None]
    colour = shot.gain * np.array((1 + shot.warmth, 1, 1 - shot.warmth), np.float32)
    picture = picture * (colour * (1 + np.float32(shot.light) * side))
    grain = np.random.Generator(np.random.Philox(shot.grain)).standard_normal((height, width, 1), dtype=np.float32)
    return np.clip(picture + 1.6 * grain + 0.5, 0, 255).astype(np.uint8)
