"""Which pictures a data check shows, what is written below them, and the pictures themselves, small."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

import pandas as pd

from foldvote.report.data_check.checks import strange_light
from foldvote.report.data_check.inputs import DataCheckInputs
from foldvote.runtime.seeding import generator

Key = tuple[str, str]  # split and image id
MOST_PERSONS = 40
MOST_SHOTS = 14  # of one person
MOST_PAIRS = 20  # of each kind
MOST_CORRECTED = 30  # persons
MOST_STRANGE = 24  # images of each split
_WORTH = 40  # pictures from which one process more saves what its start costs


@dataclass(frozen=True)
class Thumbnail:
    """One picture: its key, what it is called to those who do not see it, and a line below it."""

    key: Key
    alt: str
    note: str


@dataclass(frozen=True)
class SubjectRow:
    """The pictures of one person in a row, what is known of the person, and how many pictures are not shown."""

    name: str
    about: str
    shots: tuple[Thumbnail, ...]
    more: int


@dataclass(frozen=True)
class Pair:
    """Two pictures side by side: what is odd about them, and by how many of 64 bits they differ."""

    kind: str
    distance: int
    shots: tuple[Thumbnail, Thumbnail]


@dataclass(frozen=True)
class Gallery:
    """All pictures of a data check.

    Attributes:
        persons: a contact sheet over all strata.
        corrected: the images that a correction changed, by person.
        strange: images of strange light.
        pairs: look-alikes.
    """

    persons: tuple[SubjectRow, ...]
    corrected: tuple[SubjectRow, ...]
    strange: tuple[Thumbnail, ...]
    pairs: tuple[Pair, ...]

    def keys(self) -> list[Key]:
        """Every picture, what may be a fault first: where a page has a budget, the others are left out."""
        suspects = [*(shot for pair in self.pairs for shot in pair.shots), *self.strange]
        others = [shot for strip in (*self.corrected, *self.persons) for shot in strip.shots]
        return list(dict.fromkeys(shot.key for shot in [*suspects, *others]))


def choose_images(facts: DataCheckInputs, seed: int) -> Gallery:
    """Choose the pictures.

    Args:
        facts: what the data stages know.
        seed: the run's seed: the same persons each time.
    """
    by_person = dict(list(facts.train.groupby("profile", sort=False)))
    persons = facts.train.groupby("group")["profile"].nunique()
    shared = set(persons.index[persons > 1])
    fold_of = facts.folds[facts.folds["repeat"] == 0].set_index("profile")["fold"].to_dict()
    corrected = facts.train[facts.train["corrected"]].groupby("profile", sort=False)
    known = {split: rows.set_index("image_id") for split, rows in facts.manifests.items()}
    chosen = choose_subjects(facts.folds, MOST_PERSONS, seed)
    return Gallery(
        persons=tuple(_subject_row(name, by_person[name], fold_of.get(name), shared, facts) for name in chosen),
        corrected=tuple(
            _subject_row(name, rows, None, shared, facts) for name, rows in list(corrected)[:MOST_CORRECTED]
        ),
        strange=tuple(_strange(facts)),
        pairs=tuple(_pairs(facts, known)),
    )


def choose_subjects(folds: pd.DataFrame, most: int, seed: int) -> list[str]:
    """Persons for a contact sheet: from each stratum in turn, the rare ones as often as the common, by chance within.

    Args:
        folds: rows of folds.FOLDS.
        most: how many persons.
        seed: the run's seed.

    Returns:
        Profiles, sorted by stratum and name; all of them where there are no more than `most`.
    """
    persons = folds.drop_duplicates("profile")[["profile", "stratum"]].sort_values("profile")
    drawn = persons.iloc[generator(seed, "contact sheet").permutation(len(persons))]
    drawn = drawn.assign(turn=drawn.groupby("stratum", sort=False).cumcount())
    chosen = drawn.sort_values(["turn", "stratum"], kind="stable").head(most)
    return chosen.sort_values(["stratum", "profile"])["profile"].tolist()


def _subject_row(
    name: str, rows: pd.DataFrame, fold: int | None, shared: set[str], facts: DataCheckInputs
) -> SubjectRow:
    """What is the same in all of a person's shots stands beside the name, what differs below each shot.

    Groups are named where they hold several persons: `shared`.
    """
    levels = list(facts.scheme.factors) or ["class_name"]
    same = [factor for factor in levels if rows[factor].nunique() == 1]
    about = [str(rows[factor].iloc[0]) for factor in same]
    numeric = facts.numeric
    if numeric is not None and rows[numeric.column].notna().any():
        about.append(f"{int(rows[numeric.column].iloc[0])} {numeric.unit}")
    if rows["group"].iloc[0] in shared:
        about.append(f"group {rows['group'].iloc[0]}")
    if fold is not None:
        about.append(f"fold {fold}" if fold >= 0 else "only trained on")
    differing = [factor for factor in levels if factor not in same]
    shots = [
        Thumbnail(("train", row["image_id"]), f"{row['image_id']}, {row['class_name']}", _note(row, differing))
        for row in rows.head(MOST_SHOTS).to_dict("records")
    ]
    return SubjectRow(str(name), ", ".join(about), tuple(shots), len(rows) - len(shots))


def _note(row: dict[str, Any], differing: list[str]) -> str:
    """The file's name, as ids may be long, and what is not the same in all shots."""
    return ": ".join(
        [PurePosixPath(row["path"]).stem, *([" ".join(row[factor] for factor in differing)] * bool(differing))]
    )


def _strange(facts: DataCheckInputs) -> Iterator[Thumbnail]:
    for split, light in facts.light.items():
        for row in strange_light(light).head(MOST_STRANGE).to_dict("records"):
            yield Thumbnail((split, row["image_id"]), row["image_id"], f"{row['image_id']} ({split}): {row['why']}")


def _pairs(facts: DataCheckInputs, known: Mapping[str, pd.DataFrame]) -> Iterator[Pair]:
    for row in facts.alike.groupby("kind", sort=False).head(MOST_PAIRS).to_dict("records"):
        shots = []
        for side in "ab":
            split, image_id = row[f"{side}_split"], row[side]
            class_name = known[split].loc[image_id, "class_name"]
            what = split if pd.isna(class_name) else class_name
            shots.append(Thumbnail((split, image_id), f"{image_id}, {what}", f"{image_id}: {what}"))
        yield Pair(row["kind"], row["distance"], (shots[0], shots[1]))
