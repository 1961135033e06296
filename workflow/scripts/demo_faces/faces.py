"""Random properties of what is drawn: an invented person, a visit to the photographer, and one shot.

Gender and age are only partly visible. Each person has a latent femininity and a visible age that scatter around the
true values; hair, beard, brows and wrinkles depend on these at random. So even a good network is not always right.
"""

from dataclasses import dataclass

import numpy as np

from demo_faces.brush import Rgb, mix

SKINS: tuple[Rgb, ...] = (
    (252, 224, 202), (246, 209, 180), (236, 192, 158), (222, 172, 136), (196, 142, 106), (152, 104, 76),
)  # fmt: skip
HAIRS: tuple[Rgb, ...] = (
    (34, 30, 34), (46, 36, 36), (66, 46, 38), (98, 66, 46), (132, 72, 46), (158, 118, 74), (204, 166, 108),
)  # fmt: skip
DYED: tuple[Rgb, ...] = ((206, 112, 142), (98, 122, 186), (126, 94, 158), (180, 70, 62))
IRISES: tuple[Rgb, ...] = ((62, 42, 32), (84, 56, 38), (104, 74, 46), (88, 112, 76), (82, 116, 146))
CLOTHES: tuple[Rgb, ...] = (
    (58, 76, 110), (148, 64, 70), (74, 110, 96), (222, 210, 190), (60, 60, 68), (190, 140, 92), (118, 98, 146),
    (214, 160, 160), (92, 132, 170), (226, 190, 102), (236, 236, 238), (128, 142, 104),
)  # fmt: skip
BACKDROPS: tuple[Rgb, ...] = (
    (196, 214, 222), (222, 208, 196), (206, 218, 200), (214, 204, 222), (228, 216, 188), (190, 200, 212),
    (224, 198, 196), (186, 206, 204), (210, 210, 208), (170, 184, 196),
)  # fmt: skip
MASKS: tuple[tuple[str, Rgb], ...] = (
    ("surgical", (152, 202, 228)), ("surgical", (242, 245, 248)), ("folded", (246, 246, 244)), ("folded", (44, 44, 50)),
    ("cloth", (58, 62, 70)), ("surgical", (176, 216, 200)), ("cloth", (238, 190, 202)), ("striped", (108, 132, 176)),
    ("dotted", (214, 226, 236)), ("cloth", (206, 202, 194)), ("folded", (196, 206, 224)), ("dotted", (84, 100, 140)),
)  # fmt: skip
SHORT = ("crop", "parted", "quiff", "curly", "buzz", "bowl")
LONG = ("straight", "wavy", "bob", "ponytail", "bun", "afro")
BARE = ("receding", "bald")


@dataclass(frozen=True)
class Person:
    """The face of one person. Lengths are in halves of the face's height, strengths run from 0 to 1."""

    gender: str
    age: int
    skin: Rgb
    width: float
    jaw: float
    chin: float
    hair: str
    fringe: str
    hair_colour: Rgb
    volume: float
    side: int
    brow: float
    brow_tilt: float
    eye_gap: float
    eye_size: float
    iris: Rgb
    lashes: float
    nose_width: float
    nose_length: float
    mouth: float
    lips: float
    lip_colour: Rgb
    ears: float
    beard: str
    wrinkles: float
    blush: float
    freckles: float
    mole: tuple[float, float] | None
    glasses: str
    glasses_colour: Rgb
    earrings: bool
    build: float
    smile: float


@dataclass(frozen=True)
class Visit:
    """Clothes, masks and backdrop of one visit, the same in all seven shots."""

    garment: str
    cloth: Rgb
    trim: Rgb
    backdrop: Rgb
    backdrop_low: Rgb
    blobs: tuple[tuple[float, float, float, float], ...]
    masks: tuple[int, ...]
    light: float


@dataclass(frozen=True)
class Shot:
    """What differs between the shots of a visit. `wearing` is one of wear, incorrect, not-wear."""

    wearing: str
    mask: int
    slip: str
    shift: tuple[float, float]
    scale: float
    tilt: float
    turn: tuple[float, float]
    gain: float
    warmth: float
    light: float
    smile: float
    lids: float
    grain: int


def invent_person(rng: np.random.Generator, gender: str, age: int) -> Person:
    """Draw the looks of a person.

    Args:
        rng: a new generator, used for all draws.
        gender: male or female.
        age: years, 18 to 60.
    """
    feminine = float(np.clip((0.75 if gender == "female" else -0.75) + rng.normal(0, 0.55), -1.6, 1.6))
    seen_age = age + rng.normal(0, 4.0)
    skin = _vary(rng, SKINS[rng.choice(len(SKINS), p=(0.2, 0.28, 0.22, 0.14, 0.09, 0.07))], 5)
    hair, beard = _hair(rng, gender, seen_age), _beard(rng, gender, seen_age)
    lip_tint = (198, 84, 92) if gender == "female" and rng.random() < 0.55 else (186, 108, 98)
    return Person(
        gender=gender,
        age=age,
        skin=skin,
        width=0.735 + rng.normal(0, 0.028) - 0.012 * feminine,
        jaw=0.585 + rng.normal(0, 0.025) - 0.035 * feminine,
        chin=0.285 + rng.normal(0, 0.025) - 0.045 * feminine,
        hair=hair,
        fringe=str(rng.choice(("fringe", "centre", "swept"), p=(0.32, 0.28, 0.4))),
        hair_colour=_hair_colour(rng, gender, seen_age, skin),
        volume=0.13 + abs(rng.normal(0, 0.045)),
        side=int(rng.choice((-1, 1))),
        brow=float(np.clip(0.062 - 0.016 * feminine + rng.normal(0, 0.008), 0.03, 0.095)),
        brow_tilt=rng.normal(0.015, 0.02) + 0.015 * feminine,
        eye_gap=0.335 + rng.normal(0, 0.014),
        eye_size=0.168 + rng.normal(0, 0.009) + 0.006 * feminine,
        iris=IRISES[rng.choice(len(IRISES), p=(0.36, 0.27, 0.17, 0.09, 0.11))],
        lashes=float(np.clip(0.35 + 0.35 * feminine + rng.normal(0, 0.15), 0, 1)),
        nose_width=0.135 + rng.normal(0, 0.014) - 0.012 * feminine,
        nose_length=0.31 + rng.normal(0, 0.025),
        mouth=0.255 + rng.normal(0, 0.022),
        lips=float(np.clip(0.072 + 0.016 * feminine + rng.normal(0, 0.012), 0.04, 0.12)),
        lip_colour=mix(skin, lip_tint, 0.72 if gender == "female" else 0.5),
        ears=1 + rng.normal(0, 0.08),
        beard=beard,
        wrinkles=float(np.clip((seen_age - 30) / 28, 0, 1.1)),
        blush=float(np.clip(0.2 + 0.1 * feminine + rng.normal(0, 0.08) - (seen_age - 25) * 0.004, 0, 0.5)),
        freckles=float(rng.random() < 0.1) * rng.uniform(0.4, 0.8),
        mole=(rng.uniform(-0.5, 0.5), rng.uniform(0.3, 0.75)) if rng.random() < 0.18 else None,
        glasses=str(rng.choice(("none", "round", "square"), p=_glasses_odds(seen_age))),
        glasses_colour=((40, 38, 42), (120, 78, 52), (148, 140, 128))[rng.integers(3)],
        earrings=bool(rng.random() < (0.4 if gender == "female" else 0.04)),
        build=1.5 - 0.1 * feminine + rng.normal(0, 0.06),
        smile=float(np.clip(rng.normal(0.35, 0.2), 0, 0.8)),
    )


def invent_visit(rng: np.random.Generator) -> Visit:
    """Draw the clothes, the backdrop and the box of masks of one visit."""
    cloth = _vary(rng, CLOTHES[rng.integers(len(CLOTHES))], 8)
    backdrop = _vary(rng, BACKDROPS[rng.integers(len(BACKDROPS))], 8)
    blobs = [(rng.uniform(0, 1), rng.uniform(0, 0.9), rng.uniform(0.08, 0.25), rng.normal(0, 12)) for _ in range(5)]
    return Visit(
        garment=str(rng.choice(("crew", "vneck", "shirt", "turtle", "hoodie", "stripes"))),
        cloth=cloth,
        trim=_vary(rng, CLOTHES[rng.integers(len(CLOTHES))], 8),
        backdrop=backdrop,
        backdrop_low=mix(_vary(rng, backdrop, 10), (120, 116, 120), rng.uniform(0.08, 0.3)),
        blobs=tuple(blobs),
        masks=tuple(int(mask) for mask in rng.permutation(len(MASKS))[:5]),
        light=rng.uniform(-1, 1),
    )


def invent_shot(rng: np.random.Generator, person: Person, visit: Visit, wearing: str, number: int) -> Shot:
    """Draw one shot of a visit.

    Args:
        rng: a new generator, used for all draws.
        person: the person, whose smile and eyes vary between shots.
        visit: the visit, whose masks are worn.
        wearing: wear, incorrect or not-wear.
        number: 0 to 4, which of the visit's masks is worn.
    """
    return Shot(
        wearing=wearing,
        mask=visit.masks[number],
        slip=str(rng.choice(("nose", "chin"), p=(0.6, 0.4))),
        shift=(rng.normal(0, 0.05), rng.normal(0, 0.05)),
        scale=float(np.exp(rng.normal(0, 0.025))),
        tilt=rng.normal(0, 0.04),
        turn=(float(np.clip(rng.normal(0, 0.05), -0.12, 0.12)), float(np.clip(rng.normal(0, 0.02), -0.05, 0.05))),
        gain=float(np.exp(rng.normal(0, 0.035))),
        warmth=rng.normal(0, 0.012),
        light=0.05 * visit.light + rng.normal(0, 0.02),
        smile=float(np.clip(person.smile + rng.normal(0, 0.15), 0, 1)),
        lids=float(np.clip(rng.normal(0.92, 0.08), 0.62, 1.08)),
        grain=int(rng.integers(2**31)),
    )


def _hair(rng: np.random.Generator, gender: str, seen_age: float) -> str:
    if gender == "male" and rng.random() < 0.1 + 0.45 * np.clip((seen_age - 38) / 24, 0, 1):
        return str(rng.choice(BARE, p=(0.65, 0.35)))
    long = rng.random() < (0.82 if gender == "female" else 0.09)
    if long:
        return str(rng.choice(LONG, p=(0.26, 0.2, 0.22, 0.13, 0.12, 0.07)))
    odds = (0.22, 0.2, 0.08, 0.2, 0.0, 0.3) if gender == "female" else (0.26, 0.26, 0.2, 0.1, 0.1, 0.08)
    return str(rng.choice(SHORT, p=odds))


def _beard(rng: np.random.Generator, gender: str, seen_age: float) -> str:
    if gender == "female":
        return "none"
    grown = 0.04 if seen_age > 25 else 0.0
    odds = np.array((0.5 - 2 * grown, 0.28, 0.06 + grown, 0.07 + grown, 0.09))
    return str(rng.choice(("none", "stubble", "moustache", "full", "goatee"), p=odds / odds.sum()))


def _hair_colour(rng: np.random.Generator, gender: str, seen_age: float, skin: Rgb) -> Rgb:
    fair = sum(skin) > 560
    odds = np.array((0.3, 0.22, 0.2, 0.12, 0.06, 0.06, 0.05)) * (1 if fair else np.array((1, 1, 0.6, 0.2, 0, 0, 0)))
    colour = _vary(rng, HAIRS[rng.choice(len(HAIRS), p=odds / odds.sum())], 5)
    if seen_age < 30 and rng.random() < 0.07:
        colour = DYED[rng.integers(len(DYED))]
    hides_grey = rng.random() < (0.25 if gender == "female" else 0.08)
    grey = float(np.clip((seen_age - 42) / 17 + rng.normal(0, 0.16), 0, 0.95)) * (0.2 if hides_grey else 1)
    return mix(colour, (206, 205, 206), grey)


def _glasses_odds(seen_age: float) -> tuple[float, float, float]:
    worn = 0.18 + 0.22 * float(np.clip((seen_age - 38) / 20, 0, 1))
    return 1 - worn, worn / 2, worn / 2


def _vary(rng: np.random.Generator, colour: Rgb, spread: float) -> Rgb:
    shift = rng.normal(0, spread) * 0.7 + rng.normal(0, spread * 0.5, 3)
    return tuple(float(value) for value in np.clip(np.asarray(colour, float) + shift, 0, 255))  # type: ignore[return-value]
