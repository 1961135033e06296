"""Which images a data check shows, and the captions below them."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

import pandas as pd

from foldvote.report.data_check.checks import unusual_images
from foldvote.report.data_check.inputs import DataCheckInputs
from foldvote.report.thumbnails import Key
from foldvote.runtime.seeding import generator
from foldvote.splits.reserve import RESERVE

MOST_PERSONS = 40
MOST_IMAGES = 14  # of one person
MOST_PAIRS = 20  # of each kind
MOST_CORRECTED = 30  # persons
MOST_UNUSUAL = 24  # images of each split


@dataclass(frozen=True)
class Thumbnail:
    """One image of the page.

    Attributes:
        key: its split and image id.
        alt: its text for screen readers.
        note: the line below it.
    """

    key: Key
    alt: str
    note: str


@dataclass(frozen=True)
class SubjectRow:
    """The images of one person in a row.

    Attributes:
        name: the person's profile.
        about: what is known of the person, such as factor levels and fold.
        images: at most MOST_IMAGES images.
        more: how many images are not shown.
    """

    name: str
    about: str
    images: tuple[Thumbnail, ...]
    more: int


@dataclass(frozen=True)
class Pair:
    """Two equal or similar images side by side.

    Attributes:
        kind: what is wrong with them, a constant of inputs.py.
        distance: how many of 64 bits of their perceptual hashes differ.
        images: the two.
    """

    kind: str
    distance: int
    images: tuple[Thumbnail, Thumbnail]


@dataclass(frozen=True)
class Gallery:
    """All images of a data check.

    Attributes:
        persons: a contact sheet of persons from all strata.
        corrected: the images that a correction changed, by person.
        unusual: images that are nearly black, white or of one colour.
        pairs: look-alikes.
    """

    persons: tuple[SubjectRow, ...]
    corrected: tuple[SubjectRow, ...]
    unusual: tuple[Thumbnail, ...]
    pairs: tuple[Pair, ...]

    def keys(self) -> list[Key]:
        """Every image once, possible errors first: where the page's budget is spent, the rest is left out."""
        suspicious = [*(image for pair in self.pairs for image in pair.images), *self.unusual]
        others = [image for row in (*self.corrected, *self.persons) for image in row.images]
        return list(dict.fromkeys(image.key for image in [*suspicious, *others]))


def choose_images(inputs: DataCheckInputs, seed: int) -> Gallery:
    """Choose the images of a data check.

    Args:
        inputs: the tables of the data stages.
        seed: seed of the choice of persons.
    """
    by_person = dict(list(inputs.train.groupby("profile", sort=False)))
    persons = inputs.train.groupby("group")["profile"].nunique()
    shared = set(persons.index[persons > 1])
    once = inputs.folds[inputs.folds["repeat"] == 0].sort_values("fold")  # a person's own fold is the last
    fold_of = once.set_index("profile")["fold"].to_dict()
    corrected = inputs.train[inputs.train["corrected"]].groupby("profile", sort=False)
    by_id = {split: rows.set_index("image_id") for split, rows in inputs.manifests.items()}
    chosen = choose_subjects(inputs.folds, MOST_PERSONS, seed)
    return Gallery(
        persons=tuple(_subject_row(name, by_person[name], fold_of.get(name), shared, inputs) for name in chosen),
        corrected=tuple(
            _subject_row(name, rows, None, shared, inputs) for name, rows in list(corrected)[:MOST_CORRECTED]
        ),
        unusual=tuple(_unusual_thumbnails(inputs)),
        pairs=tuple(_pairs(inputs, by_id)),
    )


def choose_subjects(folds: pd.DataFrame, most: int, seed: int) -> list[str]:
    """Choose persons for a contact sheet: equally many from each stratum where possible, at random within a stratum.

    Args:
        folds: rows of folds.FOLDS.
        most: how many persons.
        seed: seed of the choice.

    Returns:
        Profiles, sorted by stratum and name; all of them if there are no more than `most`.
    """
    persons = folds.drop_duplicates("profile")[["profile", "stratum"]].sort_values("profile")
    drawn = persons.iloc[generator(seed, "contact sheet").permutation(len(persons))]
    drawn = drawn.assign(turn=drawn.groupby("stratum", sort=False).cumcount())
    chosen = drawn.sort_values(["turn", "stratum"], kind="stable").head(most)
    return chosen.sort_values(["stratum", "profile"])["profile"].tolist()


def _subject_row(
    name: str, rows: pd.DataFrame, fold: int | None, shared: set[str], inputs: DataCheckInputs
) -> SubjectRow:
    """The row of one person: what all images share is shown beside the name, what differs below each image.

    Args:
        name: the person's profile.
        rows: the person's rows of the manifest.
        fold: the person's fold; None leaves it out.
        shared: groups of several persons, which are named.
        inputs: for the factors.
    """
    levels = list(inputs.label_space.factors) or ["class_name"]
    same = [factor for factor in levels if rows[factor].nunique() == 1]
    about = [str(rows[factor].iloc[0]) for factor in same]
    numeric = inputs.numeric
    if numeric is not None and rows[numeric.column].notna().any():
        about.append(f"{int(rows[numeric.column].iloc[0])} {numeric.unit}")
    if rows["group"].iloc[0] in shared:
        about.append(f"group {rows['group'].iloc[0]}")
    if fold is not None:
        about.append("in the reserve" if fold == RESERVE else f"fold {fold}" if fold >= 0 else "only in training")
    differing = [factor for factor in levels if factor not in same]
    images = [
        Thumbnail(("train", row["image_id"]), f"{row['image_id']}, {row['class_name']}", _note(row, differing))
        for row in rows.head(MOST_IMAGES).to_dict("records")
    ]
    return SubjectRow(str(name), ", ".join(about), tuple(images), len(rows) - len(images))


def _note(row: dict[str, Any], differing: list[str]) -> str:
    """The file's name, as ids may be long, and the levels that differ between the person's images."""
    return ": ".join(
        [PurePosixPath(row["path"]).stem, *([" ".join(row[factor] for factor in differing)] * bool(differing))]
    )


def _unusual_thumbnails(inputs: DataCheckInputs) -> Iterator[Thumbnail]:
    for split, light in inputs.light.items():
        for row in unusual_images(light).head(MOST_UNUSUAL).to_dict("records"):
            yield Thumbnail((split, row["image_id"]), row["image_id"], f"{row['image_id']} ({split}): {row['why']}")


def _pairs(inputs: DataCheckInputs, by_id: Mapping[str, pd.DataFrame]) -> Iterator[Pair]:
    for row in inputs.lookalikes.groupby("kind", sort=False).head(MOST_PAIRS).to_dict("records"):
        images = []
        for side in "ab":
            split, image_id = row[f"{side}_split"], row[side]
            class_name = by_id[split].loc[image_id, "class_name"]
            label = split if pd.isna(class_name) else class_name
            images.append(Thumbnail((split, image_id), f"{image_id}, {label}", f"{image_id}: {label}"))
        yield Pair(row["kind"], row["distance"], (images[0], images[1]))
