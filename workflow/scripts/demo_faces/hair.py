"""Hair, behind the face and in front of it. Units as in `portrait`."""

import numpy as np

from demo_faces.brush import Brush, ellipse, mirrored, mix, shade, smooth
from demo_faces.faces import BARE, Person


def back_hair(brush: Brush, person: Person) -> None:
    """Hair behind the face and before the shoulders."""
    wide, top, colour = person.width, -1.03 - person.volume, shade(person.hair_colour, 0.8)
    if person.hair in ("bun", "ponytail"):
        if person.hair == "bun":
            brush.fill(ellipse((0.05 * person.side, top - 0.1), (0.32, 0.27)), colour)
            brush.stroke(
                smooth([(-0.15, top - 0.12), (0, top - 0.22), (0.18, top - 0.12)], False), shade(colour, 1.4), 0.03, 0.6
            )
        else:
            s = person.side
            tail = [
                (s * 0.5, -0.6),
                (s * 0.95, -0.5),
                (s * 1.08, 0.2),
                (s * 1.0, 1.0),
                (s * 0.86, 1.55),
                (s * 0.8, 0.9),
                (s * 0.78, 0.1),
            ]
            brush.fill(smooth(tail), colour)
        return
    end = {"bob": 0.98, "straight": 2.05, "wavy": 1.85, "afro": 0.75}[person.hair]
    spread = {"bob": 1.2, "straight": 1.18, "wavy": 1.3, "afro": 1.55}[person.hair]
    half = [(0, top), (wide * 0.75, top + 0.12), (wide * spread, -0.35), (wide * spread * 1.03, 0.35)]
    if person.hair == "wavy":
        half += [
            (wide * 1.22, 0.7),
            (wide * 1.42, 1.05),
            (wide * 1.24, 1.4),
            (wide * 1.3, end - 0.05),
            (wide * 0.85, end),
        ]
    elif person.hair == "afro":
        half = [(0, top - 0.2), (wide * 0.85, top - 0.02), (wide * 1.48, -0.5), (wide * 1.55, 0.2), (wide * 1.15, end)]
    else:
        half += [(wide * spread, end - 0.25), (wide * 0.98, end), (wide * 0.5, end - 0.04)]
    mass = smooth(mirrored([*half, (0, min(end, 1.1))]))
    brush.fill(mass, colour)
    inside = brush.cover(mass)
    for sign in (-1, 1):
        for offset in (0.86, 1.0, 1.12):
            lock = smooth(
                [(sign * wide * offset, -0.5), (sign * wide * (offset + 0.06), 0.4), (sign * wide * offset, end)], False
            )
            brush.stroke(lock, shade(person.hair_colour, 1.3 if offset == 1.0 else 0.55), 0.03, 0.5, 0.01, inside)


def front_hair(brush: Brush, person: Person, face: np.ndarray) -> None:
    """Hair on the skull and over the forehead."""
    wide, colour = person.width, person.hair_colour
    line = _hairline(person)
    low = line[0][1]
    top = -1.03 - person.volume * {"buzz": 0.3, "receding": 0.45, "quiff": 1.4, "curly": 1.3}.get(person.hair, 1.0)
    bulge = 1.04 if person.hair in ("buzz", "crop", *BARE) else 1.1
    if person.hair == "bald":
        for sign in (-1, 1):
            patch = [
                (sign * wide * 0.96, 0.12),
                (sign * wide * 1.05, 0.0),
                (sign * wide * 1.05, -0.35),
                (sign * wide * 0.93, -0.55),
                (sign * wide * 0.92, -0.2),
            ]
            brush.fill(smooth(patch), colour, 0.85, 0.025)
        brush.fill(ellipse((-0.2, -0.82), (0.22, 0.08)), (255, 250, 244), 0.3, 0.05, face)
        return
    left = [
        (-wide * 1.03, low),
        (-wide * bulge, -0.3),
        (-wide * 0.93 * bulge, -0.68),
        (-wide * 0.55, top + 0.1),
        (0, top),
    ]
    over = smooth([*left, *((-x, y) for x, y in reversed(left[:-1]))], False)
    if person.hair == "quiff":
        over = over + np.stack(
            [0.1 * person.side * np.clip(-over[:, 1] - 0.7, 0, 1), -0.12 * np.clip(-over[:, 1] - 0.9, 0, 1)], axis=1
        )
    cap = np.vstack([over, smooth(line, False)])
    brush.fill([(x, y + 0.05) for x, y in cap], shade(person.skin, 0.55), 0.45, 0.04, face)
    brush.fill(cap, colour, 0.72 if person.hair == "buzz" else 1.0, 0.018 if person.hair == "buzz" else 0.006)
    if person.hair in ("curly", "afro"):
        _curls(brush, person, top)
    inside = brush.cover(cap)
    part = 0.0 if person.fringe == "centre" else 0.34 * person.side
    for index, end in enumerate(np.linspace(-1, 1, 11)):
        tone = (1.35, 0.62, 1.16)[index % 3]
        strand = smooth(
            [
                (part * 0.8, top + 0.02),
                (end * wide * 0.62 + part * 0.3, top + 0.26),
                (end * wide * 1.0, -0.38 + 0.3 * abs(end)),
            ],
            False,
        )
        brush.stroke(strand, shade(colour, tone), 0.035, 0.34, 0.012, inside)
    shine = smooth([(-wide * 0.7, -0.74), (-0.1, top + 0.17), (wide * 0.66, -0.76)], False)
    brush.stroke(shine, mix(shade(colour, 1.5), (255, 250, 240), 0.25), 0.09, 0.32, 0.035, inside)


def _hairline(person: Person) -> list[tuple[float, float]]:
    """From the right temple over the forehead to the left temple."""
    wide, side = person.width, person.side
    if person.hair in ("bald", "receding"):
        half = [(wide * 1.01, 0.05), (wide * 0.95, -0.25), (wide * 0.8, -0.62), (0.3, -0.8), (0, -0.72)]
        return [*half, *((-x, y) for x, y in reversed(half[:-1]))]
    if person.hair in ("crop", "buzz", "quiff", "curly"):
        half = [(wide * 1.0, 0.1), (wide * 0.93, -0.16), (wide * 0.84, -0.5), (wide * 0.5, -0.62), (0, -0.6)]
        return [*half, *((-x, y) for x, y in reversed(half[:-1]))]
    if person.hair == "parted":
        line = [
            (wide, 0.1),
            (wide * 0.92, -0.2),
            (wide * 0.8, -0.5),
            (0.36, -0.72),
            (0.0, -0.58),
            (-0.4, -0.46),
            (-wide * 0.88, -0.36),
            (-wide, 0.1),
        ]
    elif person.hair == "bowl" or (person.fringe == "fringe" and person.hair not in ("ponytail", "bun", "afro")):
        low = 0.15 if person.hair == "bowl" else 0.5
        half = [(wide * 1.02, low), (wide * 0.93, -0.1), (wide * 0.76, -0.36), (0.3, -0.4), (0, -0.38)]
        return [*half, *((-x, y) for x, y in reversed(half[:-1]))]
    elif person.fringe == "centre" and person.hair not in ("ponytail", "bun", "afro"):
        half = [(wide * 1.02, 0.5), (wide * 0.97, 0.05), (wide * 0.8, -0.34), (0.3, -0.7), (0, -0.86)]
        return [*half, *((-x, y) for x, y in reversed(half[:-1]))]
    elif person.hair in ("ponytail", "bun", "afro"):
        half = [(wide * 1.0, 0.12), (wide * 0.92, -0.26), (wide * 0.76, -0.58), (0.28, -0.72), (0, -0.74)]
        return [*half, *((-x, y) for x, y in reversed(half[:-1]))]
    else:
        line = [
            (wide * 1.02, 0.5),
            (wide * 0.96, 0.0),
            (wide * 0.84, -0.35),
            (0.34, -0.82),
            (0.05, -0.6),
            (-0.32, -0.42),
            (-wide * 0.9, -0.1),
            (-wide * 1.02, 0.5),
        ]
    return line if side > 0 else [(-x, y) for x, y in reversed(line)]


def _curls(brush: Brush, person: Person, top: float) -> None:
    reach, height = (1.42, 0.2) if person.hair == "afro" else (1.06, 0.0)
    for index, angle in enumerate(np.linspace(np.pi * 0.02, np.pi * 0.98, 15)):
        at = (person.width * reach * np.cos(angle), -0.3 + (top + 0.3 - height) * np.sin(angle) + 0.06)
        size = 0.15 + 0.035 * (index % 3)
        brush.fill(ellipse(at, (size, size)), shade(person.hair_colour, (1.0, 0.9, 1.08)[index % 3]))
    for index, x in enumerate(np.linspace(-0.8, 0.8, 7)):
        at = (x * person.width, -0.66 - 0.06 * (index % 2))
        brush.fill(ellipse(at, (0.14, 0.12)), shade(person.hair_colour, 0.92 + 0.08 * (index % 3)))
        ring = smooth([(at[0] - 0.07, at[1]), (at[0], at[1] - 0.07), (at[0] + 0.07, at[1])], False)
        brush.stroke(ring, shade(person.hair_colour, 1.5), 0.02, 0.5)
