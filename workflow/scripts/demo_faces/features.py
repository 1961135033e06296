"""The features of a face: outline, shading, eyes, nose, mouth, lines of age and beard. Units as in `portrait`."""

import numpy as np

from demo_faces.brush import Brush, ellipse, mirrored, mix, shade, smooth
from demo_faces.faces import Person, Shot


def outline(person: Person) -> list[tuple[float, float]]:
    """Outline of the face, clockwise from the top: a list of (x, y)."""
    wide, sag = person.width, 0.03 * person.wrinkles
    half = [
        (0, -1.0), (wide * 0.56, -0.92), (wide * 0.93, -0.55), (wide, -0.08), (wide * 0.95, 0.3),
        (person.jaw + sag, 0.66), (person.chin + sag, 0.93), (0, 1.03),
    ]  # fmt: skip
    return mirrored(half)


def shading(brush: Brush, person: Person, shot: Shot, face: np.ndarray) -> None:
    """Light, cheeks, freckles and mole; nothing outside the cover `face`."""
    skin = person.skin
    lit = 1 if shot.light > 0 else -1
    brush.fill(ellipse((-lit * person.width * 1.02, 0.1), (0.24, 0.95)), shade(skin, 0.72), 0.6, 0.12, face)
    brush.fill(ellipse((lit * person.width * 1.08, 0.2), (0.18, 0.8)), shade(skin, 0.78), 0.45, 0.1, face)
    brush.fill(ellipse((0, 1.02), (0.5, 0.13)), shade(skin, 0.78), 0.55, 0.08, face)
    brush.fill(ellipse((lit * 0.1, -0.5), (0.36, 0.2)), shade(skin, 1.1), 0.5, 0.12, face)
    for sign in (-1, 1):
        brush.fill(ellipse((sign * 0.44, 0.33), (0.17, 0.12)), (226, 112, 104), person.blush, 0.08, face)
        brush.fill(ellipse((sign * person.eye_gap, -0.1), (0.22, 0.13)), shade(skin, 0.78), 0.4, 0.06, face)
    if person.freckles:
        for x, y in (
            (-0.4, 0.2),
            (-0.3, 0.27),
            (-0.48, 0.3),
            (-0.2, 0.2),
            (0.38, 0.22),
            (0.28, 0.28),
            (0.47, 0.27),
            (0.2, 0.2),
        ):
            brush.fill(ellipse((x, y), (0.015, 0.015)), shade(skin, 0.68), person.freckles)
    if person.mole:
        brush.fill(ellipse(person.mole, (0.02, 0.02)), (84, 56, 48), 0.85)


def eyes(brush: Brush, person: Person, shot: Shot) -> None:
    """Both eyes with their brows."""
    size, y = person.eye_size, -0.06
    open_by = size * 0.56 * shot.lids * (1 - 0.22 * person.wrinkles)
    brow_colour = mix(shade(person.hair_colour, 0.75), (70, 52, 44), 0.35)
    for sign in (-1, 1):
        x = sign * person.eye_gap
        outer, inner = x + sign * size, x - sign * size
        almond = smooth([
            (inner, y + 0.03), (x - sign * size * 0.35, y - open_by * 0.82), (x + sign * size * 0.3, y - open_by * 0.9),
            (outer, y - 0.005), (x + sign * size * 0.3, y + open_by * 0.72), (x - sign * size * 0.4, y + open_by * 0.7),
        ])  # fmt: skip
        brush.fill(almond, (246, 243, 240))
        white = brush.cover(almond)
        brush.fill(ellipse((x, y - open_by), (size, open_by * 0.8)), (120, 104, 104), 0.4, 0.03, white)
        iris = size * 0.54
        brush.fill(ellipse((x, y - 0.005), (iris, iris)), shade(person.iris, 0.7), within=white)
        brush.fill(ellipse((x, y + 0.01), (iris * 0.8, iris * 0.8)), shade(person.iris, 1.3), 0.8, 0.01, white)
        brush.fill(ellipse((x, y - 0.005), (iris * 0.46, iris * 0.46)), (18, 14, 16), within=white)
        brush.fill(ellipse((x + 0.03, y - 0.035), (0.022, 0.022)), (255, 255, 255), 0.95)
        upper = smooth(
            [
                (inner, y + 0.03),
                (x - sign * size * 0.35, y - open_by * 0.86),
                (x + sign * size * 0.3, y - open_by * 0.94),
                (outer + sign * 0.02 * person.lashes, y - 0.01 - 0.02 * person.lashes),
            ],
            False,
        )
        brush.stroke(upper, (44, 32, 32), 0.026 + 0.02 * person.lashes, 0.95)
        crease = [(px, py - 0.055) for px, py in upper[4:-4]]
        brush.stroke(crease, shade(person.skin, 0.6), 0.018, 0.6)
        lower = smooth([(inner, y + 0.03), (x, y + open_by * 0.78), (outer, y)], False)
        brush.stroke(lower, shade(person.skin, 0.55), 0.016, 0.6)
        brow_y = y - 0.27
        arch = person.brow_tilt
        brow = smooth([
            (x - sign * 0.18, brow_y - 0.005), (x + sign * 0.02, brow_y - 0.03 - arch),
            (x + sign * 0.23, brow_y + 0.045 - arch * 0.2),
            (x + sign * 0.02, brow_y - 0.03 - arch + person.brow * 0.9), (x - sign * 0.17, brow_y + person.brow),
        ])  # fmt: skip
        brush.fill(brow, brow_colour, 0.88, 0.008)


def nose(brush: Brush, person: Person) -> None:
    """The nose."""
    skin, wide, tip = person.skin, person.nose_width, person.nose_length
    brush.stroke(
        smooth([(0.1, -0.1), (0.05, 0.1), (wide * 0.75, tip - 0.05)], False), shade(skin, 0.74), 0.07, 0.5, 0.03
    )
    brush.stroke([(-0.01, 0.0), (-0.01, tip - 0.04)], shade(skin, 1.12), 0.07, 0.6, 0.03)
    brush.fill(ellipse((0, tip + 0.05), (wide * 1.05, 0.06)), shade(skin, 0.76), 0.6, 0.025)
    brush.fill(ellipse((0, tip - 0.01), (wide * 0.58, 0.075)), shade(skin, 1.05), 0.8, 0.02)
    for sign in (-1, 1):
        brush.fill(ellipse((sign * wide * 0.45, tip + 0.058), (0.034, 0.02)), shade(skin, 0.42), 0.85, 0.006)
        wing = smooth(
            [(sign * wide * 0.92, tip - 0.05), (sign * wide * 1.08, tip + 0.02), (sign * wide * 0.8, tip + 0.07)], False
        )
        brush.stroke(wing, shade(skin, 0.6), 0.02, 0.7)


def mouth(brush: Brush, person: Person, shot: Shot) -> None:
    """The mouth, smiling as much as the shot says."""
    wide = person.mouth * (1 + 0.18 * shot.smile)
    y, lift, full = 0.615, 0.075 * shot.smile - 0.012, person.lips
    corners = [(-wide, y - lift), (wide, y - lift)]
    seam = smooth(
        [
            corners[0],
            (-wide * 0.5, y - lift * 0.1),
            (0, y + 0.012 + lift * 0.2),
            (wide * 0.5, y - lift * 0.1),
            corners[1],
        ],
        False,
    )
    above = smooth(
        [
            corners[1],
            (wide * 0.45, y - full * 0.62),
            (wide * 0.17, y - full),
            (0, y - full * 0.78),
            (-wide * 0.17, y - full),
            (-wide * 0.45, y - full * 0.62),
            corners[0],
        ],
        False,
    )
    below = smooth(
        [
            corners[1],
            (wide * 0.5, y + full * 0.95),
            (0, y + full * 1.35 + lift * 0.4),
            (-wide * 0.5, y + full * 0.95),
            corners[0],
        ],
        False,
    )
    brush.fill(ellipse((0, y + full * 1.9), (wide * 0.55, 0.035)), shade(person.skin, 0.76), 0.55, 0.025)
    brush.fill(np.vstack([seam, above]), shade(person.lip_colour, 0.86))
    brush.fill(np.vstack([seam, below]), person.lip_colour)
    if shot.smile > 0.55:
        teeth = smooth([corners[1], (0, y + full * 0.7 + lift * 0.4), corners[0]], False)
        brush.fill(
            np.vstack([[(x * 0.82, py) for x, py in seam], [(x * 0.82, py) for x, py in teeth]]), (248, 244, 238)
        )
    brush.fill(ellipse((0, y + full * 0.8), (wide * 0.3, full * 0.22)), shade(person.lip_colour, 1.25), 0.5, 0.015)
    brush.stroke(seam, shade(person.lip_colour, 0.45), 0.02, 0.85)
    for sign in (-1, 1):
        brush.fill(ellipse((sign * wide * 1.03, y - lift), (0.03, 0.025)), shade(person.skin, 0.62), 0.6, 0.015)


def years(brush: Brush, person: Person, face: np.ndarray) -> None:
    """Lines of age: forehead, corners of the eyes, bags, and from nose to mouth."""
    strength, dark = person.wrinkles, shade(person.skin, 0.6)
    if strength <= 0.05:
        return
    for index, level in enumerate((-0.48, -0.58, -0.68)):
        reach = 0.4 - 0.05 * index
        line = smooth(
            [(-reach, level + 0.02), (-0.12, level - 0.02), (0.14, level - 0.015), (reach, level + 0.02)], False
        )
        brush.stroke(line, dark, 0.018, max(0.0, strength - 0.15 * index) * 0.6, 0.006, face)
    for sign in (-1, 1):
        x = sign * person.eye_gap
        for spread in (-0.07, 0.0, 0.07):
            start = x + sign * (person.eye_size + 0.05)
            brush.stroke(
                [(start, -0.05 + spread * 0.6), (start + sign * 0.12, -0.04 + spread * 1.6)],
                dark,
                0.016,
                strength * 0.6,
                0.005,
                face,
            )
        bag = smooth([(x - sign * 0.13, 0.07), (x, 0.13), (x + sign * 0.15, 0.06)], False)
        brush.stroke(bag, dark, 0.024, strength * 0.5, 0.012, face)
        fold = smooth([(sign * 0.2, 0.33), (sign * 0.33, 0.47), (sign * 0.36, 0.66)], False)
        brush.stroke(fold, dark, 0.026, 0.12 + strength * 0.55, 0.012, face)
    brush.stroke([(-0.04, -0.28), (-0.035, -0.16)], dark, 0.018, strength * 0.4, 0.006, face)


def beard(brush: Brush, person: Person, face: np.ndarray) -> None:
    """Stubble, moustache, goatee or full beard."""
    if person.beard == "none":
        return
    colour = mix(shade(person.hair_colour, 0.9), person.skin, 0.08)
    wide = person.width
    jaw = [(wide * 0.97, 0.22), (wide * 0.86, 0.42), (0.42, 0.5), (0.34, 0.44), (0, 0.455)]
    lower = [(person.jaw + 0.03, 0.68), (person.chin + 0.06, 0.97), (0, 1.09)]
    right = [*reversed(lower), *jaw]
    around = smooth(np.vstack([right, [(-x, y) for x, y in reversed(right[1:-1])]]), steps=6)
    mouth = smooth(mirrored([(0, 0.53), (person.mouth * 0.8, 0.56), (person.mouth * 1.12, 0.63), (0, 0.76)]))
    if person.beard == "stubble":
        brush.fill(around, mix(colour, person.skin, 0.3), 0.34, 0.05, face * (1 - 0.7 * brush.cover(mouth)))
    elif person.beard == "full":
        brush.fill(around, colour, 0.93, 0.014, 1 - brush.cover(mouth))
    if person.beard in ("moustache", "goatee"):
        lip = smooth(mirrored([(0, 0.44), (0.15, 0.45), (0.31, 0.58), (0.15, 0.54), (0, 0.525)]))
        brush.fill(lip, colour, 0.93, 0.01)
    if person.beard == "goatee":
        brush.fill(
            smooth(mirrored([(0, 0.77), (0.17, 0.8), (0.22, 0.95), (0.1, 1.09), (0, 1.12)])), colour, 0.93, 0.012
        )
