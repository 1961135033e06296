"""The rows of the demo's tables: ids, strata, second visits, file names and the planted label errors.

Row i is the same whatever the number of rows, so that a larger demo holds a smaller one.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace

from foldvote.runtime.seeding import derive, generator

RACE = "Drawn"
STRATA = tuple((gender, band) for gender in ("male", "female") for band in range(3))
AGES = ((18, 29), (30, 59), (60, 60))  # first and last age of each band; the home task's oldest are exactly 60
FIRST = 300  # rows of a demo for a few minutes; train and test of such demos have the same shares
FIRST_SHARES = (12, 10, 6, 13, 13, 6)  # of the first rows by stratum: unbalanced, but none so rare that chance decides
SHARES = (549, 410, 83, 732, 817, 109)  # of the home task's rows, by stratum, which a larger demo comes to
REVISIT_EVERY, REVISIT_AT = 20, 9
BLOCK = 300  # rows that one set of planted errors stands in
GENDER_AT, SWAP_AT, AGE_AT = (4, 17, 31), (7, 26), (22,)
GENDER_TRUE = ("male", "male", "female")  # of the persons misfiled at GENDER_AT
WORN = ("mask1", "mask2", "mask3", "mask4", "mask5", "incorrect_mask", "normal")


@dataclass(frozen=True)
class Entry:
    """One row of train.csv, or one person of the test images.

    Attributes:
        row: row number from 0; key of the draws of this visit.
        person: row of the first visit of the person; key of the draws of the face.
        id: the id in train.csv.
        gender: true gender; `age`: true age in years.
        told_gender: gender in train.csv; `told_age`: age in train.csv.
        swapped: whether the files incorrect_mask and normal hold each other's picture.
    """

    row: int
    person: int
    id: str
    gender: str
    age: int
    told_gender: str
    told_age: int
    swapped: bool = False

    @property
    def path(self) -> str:
        """Name of the folder of pictures."""
        return f"{self.id}_{self.told_gender}_{RACE}_{self.told_age}"

    @property
    def stratum(self) -> int:
        """The true gender * 3 + age band."""
        return ("male", "female").index(self.gender) * 3 + (self.age >= 30) + (self.age >= 60)


def enrol(rows: int, seed: int, part: str) -> list[Entry]:
    """The rows of one part of the demo.

    Args:
        rows: number of rows.
        seed: seed of the demo.
        part: train, with second visits and label errors; or test, without.
    """
    entries: list[Entry] = []
    counts = [0] * len(STRATA)
    errors: dict[str, int] = {}
    for row in range(rows):
        if part == "train" and row % REVISIT_EVERY == REVISIT_AT:
            first = next(entry for entry in reversed(entries[:-1]) if entry.id.isdecimal() and not _wrong(entry))
            entries.append(replace(first, row=row, id=f"{first.id}-1"))
            continue
        shares = FIRST_SHARES if row < FIRST else SHARES
        due = [share * (row + 1) / sum(shares) - count for share, count in zip(shares, counts, strict=True)]
        stratum = due.index(max(due))
        counts[stratum] += 1
        entry = _newcomer(row, seed, part, stratum)
        entries.append(_misfiled(entry, errors, seed) if part == "train" else entry)
    return entries


def corrections(entries: list[Entry]) -> Iterator[tuple[str, str, str, str, str, str]]:
    """The planted errors as rows of corrections.csv: id, field, from, to, source, certainty."""
    for entry in entries:
        if entry.told_gender != entry.gender:
            yield entry.id, "gender", entry.told_gender, entry.gender, "demo", "certain"
        if entry.told_age != entry.age:
            yield entry.id, "age", str(entry.told_age), str(entry.age), "demo", "likely"
        if entry.swapped:
            yield entry.id, "shots", "incorrect_mask", "normal", "demo", "certain"


def extensions(row: int, seed: int) -> tuple[str, ...]:
    """File extensions of a training row's seven pictures: mostly jpg, some png and jpeg, some folders mixed."""
    if row % 30 == 5:
        other = "png" if row % 60 == 5 else "jpeg"
        odd = set(generator(seed, "demo", "extension", row).permutation(len(WORN))[:3].tolist())
        return tuple(other if shot in odd else "jpg" for shot in range(len(WORN)))
    whole = "png" if row % 40 == 6 else "jpeg" if row % 50 == 8 else "jpg"
    return (whole,) * len(WORN)


def picture_name(seed: int, row: int, shot: int) -> str:
    """The name of a test picture: 40 hex digits that reveal nothing about it."""
    return "".join(f"{derive(seed, 'demo', 'name', row, shot, piece):016x}" for piece in range(3))[:40]


def _newcomer(row: int, seed: int, part: str, stratum: int) -> Entry:
    rng = generator(seed, "demo", part, "entry", row)
    gender, band = STRATA[stratum]
    youngest, oldest = AGES[band]
    # Most young persons are about 20, as in the home task.
    share = rng.random() ** (1.4 if band == 0 else 1.0)
    age = youngest + int(share * (oldest - youngest + 1))
    number = f"{2 * row + 1 + int(rng.integers(2)):06d}"
    return Entry(row, row, number, gender, age, gender, age)


def _misfiled(entry: Entry, errors: dict[str, int], seed: int) -> Entry:
    """Plant the label errors of a block: each kind at the first suitable row from its own position on."""
    at = entry.row % BLOCK
    if at == 0:
        errors.clear()
    due = {
        kind: errors.get(kind, 0) < len(places) and at >= places[errors.get(kind, 0)]
        for kind, places in (("gender", GENDER_AT), ("swap", SWAP_AT), ("age", AGE_AT))
    }
    if due["gender"] and entry.age < 60 and entry.gender == GENDER_TRUE[errors.get("gender", 0)]:
        errors["gender"] = errors.get("gender", 0) + 1
        return replace(entry, told_gender="female" if entry.gender == "male" else "male")
    if due["swap"]:
        errors["swap"] = errors.get("swap", 0) + 1
        return replace(entry, swapped=True)
    if due["age"] and entry.age < 30:
        errors["age"] = 1
        return replace(entry, told_age=entry.age + 13 + derive(seed, "demo", "age", entry.row) % 5)
    return entry


def _wrong(entry: Entry) -> bool:
    return entry.swapped or entry.told_gender != entry.gender or entry.told_age != entry.age
