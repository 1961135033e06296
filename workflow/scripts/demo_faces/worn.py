"""Clothes, glasses and mask, with the neck and ears below them. Units as in `portrait`."""

import numpy as np

from demo_faces.brush import Brush, Rgb, ellipse, lift, mirrored, shade, smooth
from demo_faces.faces import MASKS, Person, Shot, Visit


def shoulders(brush: Brush, person: Person, visit: Visit) -> None:
    """Shoulders in a garment."""
    wide, cloth = person.build, visit.cloth
    half = [(0, 1.22), (0.36, 1.25), (0.62, 1.4), (wide * 0.8, 1.54), (wide, 1.85), (wide * 1.08, 2.5), (wide, 3.6)]
    outline = smooth(mirrored(half))
    brush.fill([(x, y + 0.05) for x, y in outline], shade(cloth, 0.55), 0.35, 0.12)
    brush.fill(outline, cloth)
    inside = brush.cover(outline)
    if visit.garment == "stripes":
        for level in np.arange(1.4, 3.4, 0.26):
            band = [(-2, level + 0.1), (0, level), (2, level + 0.1)]
            brush.stroke(smooth(band, False), visit.trim, 0.1, 0.85, within=inside)
    for sign in (-1, 1):
        brush.fill(ellipse((sign * wide * 1.02, 2.5), (0.4, 0.95)), shade(cloth, 0.6), 0.55, 0.16, inside)
        fold = smooth([(sign * 0.75, 1.5), (sign * 0.9, 1.9), (sign * 0.86, 2.6)], False)
        brush.stroke(fold, shade(cloth, 0.7), 0.05, 0.4, 0.03, inside)
    brush.fill(ellipse((-0.35, 1.75), (0.7, 0.24)), shade(cloth, 1.25), 0.35, 0.15, inside)


def neck(brush: Brush, person: Person, visit: Visit) -> None:
    """The neck and the garment's collar."""
    skin, cloth = person.skin, visit.cloth
    thick = 0.3 + 0.1 * (person.build - 1.3)
    neckline = {"vneck": 1.86, "shirt": 1.72, "turtle": 1.2, "hoodie": 1.5}.get(visit.garment, 1.45)
    if visit.garment == "hoodie":
        brush.fill(
            smooth([(-0.72, 1.3), (0, 1.08), (0.72, 1.3), (0.5, 1.62), (0, 1.74), (-0.5, 1.62)]), shade(cloth, 0.78)
        )
    half = [(thick, 0.5), (thick, 1.05), (thick + 0.1, 1.28), (0.24, neckline - 0.1), (0, neckline)]
    column = smooth(mirrored([(0, 0.5), *half]))
    brush.fill(column, shade(skin, 0.95))
    inside = brush.cover(column)
    brush.fill(ellipse((0, 1.0), (thick + 0.12, 0.26)), shade(skin, 0.68), 0.75, 0.06, inside)
    collar = smooth(
        [(thick + 0.11, 1.25), (0.25, neckline - 0.09), (0, neckline), (-0.25, neckline - 0.09), (-thick - 0.11, 1.25)],
        False,
    )
    if visit.garment == "turtle":
        band = smooth(mirrored([(0, 0.98), (thick + 0.03, 0.95), (thick + 0.07, 1.2), (thick + 0.2, 1.4), (0, 1.5)]))
        brush.fill(band, shade(cloth, 0.92))
        brush.stroke(smooth([(-thick, 1.02), (0, 1.1), (thick, 1.02)], False), shade(cloth, 0.65), 0.03, 0.7)
    elif visit.garment == "shirt":
        for sign in (-1, 1):
            flap = [(sign * (thick + 0.06), 1.12), (sign * (thick + 0.24), 1.3), (sign * 0.3, 1.86), (sign * 0.01, 1.7)]
            brush.fill(flap, shade(cloth, 1.12))
            brush.stroke([flap[1], flap[2], flap[3]], shade(cloth, 0.62), 0.022, 0.8)
        for level in (1.95, 2.25):
            brush.fill(ellipse((0, level), (0.032, 0.032)), shade(cloth, 0.6))
    else:
        brush.stroke(collar, shade(cloth, 0.72), 0.07)
    if visit.garment == "hoodie":
        for sign in (-1, 1):
            brush.stroke([(sign * 0.2, 1.6), (sign * 0.22, 2.15)], (236, 234, 230), 0.035)


def ears(brush: Brush, person: Person) -> None:
    """Ears, with earrings where worn."""
    for sign in (-1, 1):
        at = (sign * (person.width + 0.03), 0.08)
        brush.fill(ellipse(at, (0.1 * person.ears, 0.2 * person.ears), sign * 0.15), shade(person.skin, 0.93))
        brush.fill(ellipse(at, (0.05, 0.12), sign * 0.15), shade(person.skin, 0.74), 0.8, 0.02)
        if person.earrings:
            brush.fill(ellipse((at[0], 0.31), (0.032, 0.042)), (232, 206, 132))


def glasses(brush: Brush, person: Person) -> None:
    """Spectacles."""
    y, colour = -0.03, person.glasses_colour
    for sign in (-1, 1):
        x = sign * (person.eye_gap + 0.01)
        if person.glasses == "round":
            rim = ellipse((x, y), (0.27, 0.25))
        else:
            rim = smooth(
                [
                    (x - 0.27, y - 0.15),
                    (x, y - 0.19),
                    (x + 0.27, y - 0.15),
                    (x + 0.25, y + 0.15),
                    (x, y + 0.19),
                    (x - 0.25, y + 0.15),
                ]
            )
        brush.fill(rim, (255, 255, 255), 0.1)
        brush.stroke(np.vstack([rim, rim[:1]]), colour, 0.042)
        brush.stroke(
            [(sign * (person.eye_gap + 0.28), y - 0.06), (sign * person.width * 1.02, y - 0.05)], colour, 0.042
        )
        brush.stroke([(x - 0.15, y + 0.08), (x - 0.03, y - 0.12)], (255, 255, 255), 0.03, 0.4)
    brush.stroke(smooth([(-0.075, y - 0.02), (0, y - 0.06), (0.075, y - 0.02)], False), colour, 0.04)


def mask(brush: Brush, person: Person, shot: Shot) -> None:
    """A mask over nose and mouth, or below the nose, or at the chin."""
    kind, colour = MASKS[shot.mask]
    wide = person.width
    slipped = shot.slip if shot.wearing == "incorrect" else ""
    top, side, low = {"": (0.08, 0.2, 1.08), "nose": (0.47, 0.42, 1.14), "chin": (0.8, 0.64, 1.3)}[slipped]
    edge = wide * 0.93 if side < 0.3 else np.interp(side, (0.3, 0.66), (wide * 0.94, person.jaw + 0.01))
    chin = person.chin + 0.06
    half = [
        (0, top),
        (0.2, top + 0.05),
        (edge * 0.7, side - 0.03),
        (edge, side),
        (min(edge, person.jaw + 0.04), max(0.7, side + 0.1)),
        (chin, low - 0.1),
        (0, low),
    ]
    outline = smooth(mirrored(half), steps=6)
    for sign in (-1, 1):
        ear = (sign * (wide + 0.05), 0.0)
        brush.stroke(
            smooth([(sign * edge * 0.97, side + 0.03), (sign * (wide + 0.0), (side - 0.05) / 2), ear], False),
            (244, 244, 244),
            0.026,
        )
        lower = (sign * min(edge, person.jaw) * 0.98, max(0.72, side + 0.12))
        brush.stroke(
            smooth([lower, (sign * (wide + 0.02), 0.42), (sign * (wide + 0.06), 0.16)], False), (238, 238, 238), 0.026
        )
    brush.fill([(x, y - 0.03) for x, y in outline], shade(person.skin, 0.5), 0.4, 0.04)
    brush.fill(outline, colour)
    inside = brush.cover(outline)
    for sign, tone in ((-1, 0.78), (1, 0.7)):
        brush.fill(ellipse((sign * wide * 0.95, 0.62), (0.22, 0.6)), shade(colour, tone), 0.65, 0.1, inside)
    brush.fill(ellipse((0, low), (0.45, 0.14)), shade(colour, 0.72), 0.6, 0.07, inside)
    brush.fill(ellipse((-0.08, top + 0.24), (0.15, 0.2)), lift(colour, 0.4), 0.5, 0.07, inside)
    _mask_pattern(brush, kind, colour, inside, top, low, edge)
    brush.stroke(np.vstack([outline, outline[:1]]), shade(colour, 0.7), 0.018, 0.8)


def _mask_pattern(
    brush: Brush, kind: str, colour: Rgb, inside: np.ndarray, top: float, low: float, edge: float
) -> None:
    dark = shade(colour, 0.72) if sum(colour) > 240 else lift(colour, 0.25)
    middle = (top + low) / 2
    if kind == "surgical":
        for share in (0.3, 0.5, 0.7):
            y = top + (low - top) * share
            brush.stroke(
                smooth([(-edge, y - 0.03), (0, y + 0.04), (edge, y - 0.03)], False), dark, 0.022, 0.75, within=inside
            )
        brush.stroke(
            smooth([(-0.22, top + 0.1), (0, top + 0.045), (0.22, top + 0.1)], False), dark, 0.03, 0.6, within=inside
        )
    elif kind == "folded":
        brush.stroke(
            smooth([(-edge, middle - 0.1), (0, middle - 0.16), (edge, middle - 0.1)], False),
            dark,
            0.026,
            0.9,
            within=inside,
        )
        brush.stroke(
            smooth([(-edge, middle + 0.02), (0, middle + 0.2), (edge, middle + 0.02)], False),
            dark,
            0.026,
            0.9,
            within=inside,
        )
    elif kind == "cloth":
        brush.stroke(smooth([(0, top), (0.02, middle), (0, low)], False), dark, 0.026, 0.9, within=inside)
    elif kind == "striped":
        for x in np.arange(-0.8, 0.81, 0.16):
            brush.stroke([(x, top - 0.1), (x * 0.7, low)], lift(colour, 0.55), 0.06, 0.85, within=inside)
    else:
        for row, y in enumerate(np.arange(top + 0.08, low, 0.15)):
            for x in np.arange(-0.7, 0.71, 0.17) + 0.085 * (row % 2):
                brush.fill(
                    ellipse((x, y), (0.034, 0.034)),
                    dark if sum(colour) > 500 else lift(colour, 0.7),
                    0.9,
                    within=inside,
                )
