"""Which pictures a report shows, in what order, and what is said of each."""

import csv
import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from foldvote.data.layouts.base import DataLayout
from foldvote.evaluation.group_consistency import disagreeing_groups, fields, level_codes, marginals
from foldvote.evaluation.label_issues import BETWEEN, draft_corrections
from foldvote.report.results.inputs import RunResults

Codes = npt.NDArray[np.int64]
JOINT = "class"  # the name of the confusion of classes, beside those of the factors
MOST_LOSSES, MOST_OF_ONE = 36, 3  # of all, and of one person
LIKELY = 0.5  # a true class with so much probability is no loss to look at
MOST_PERSONS = 24
MOST_SUSPECTS = 60
MOST_SHOTS = 14  # of one person
MOST_WRONG, MOST_RIGHT = 60, 24  # of one cell of a confusion matrix


@dataclass(frozen=True)
class Confusion:
    """How often each true level (row) is taken for each level (column), and which images these are.

    Attributes:
        name: `class`, or a factor.
        levels: names, in the order of their codes.
        counts: int64 (levels, levels).
        cells: places of images by (true, said): at most MOST_WRONG, the surest of the wrong and the least sure of the
            right first.
    """

    name: str
    levels: tuple[str, ...]
    counts: npt.NDArray[np.int64]
    cells: dict[tuple[int, int], Codes]


@dataclass(frozen=True)
class Person:
    """A person whose shots are not given one level of the fields in `about`, which belong to the person."""

    name: str
    about: tuple[dict[str, Any], ...]
    places: Codes
    more: int


@dataclass(frozen=True)
class LabelIssueCard:
    """A label that is likely wrong: its row of label_issues, its images, and lines for corrections.csv."""

    issue: dict[str, Any]
    places: Codes
    more: int
    lines: str


@dataclass(frozen=True)
class ReportGallery:
    """All pictures of a report, as places in Outcome.rows.

    Attributes:
        losses: the images whose true class is given the least, and less than LIKELY; at most MOST_OF_ONE of a person.
        persons: whose shots disagree, the worst first; `disagreeing`: how many there are.
        suspects: the likeliest label errors.
        confusions: of classes, then of each factor.
    """

    losses: Codes
    persons: tuple[Person, ...]
    disagreeing: pd.DataFrame
    suspects: tuple[LabelIssueCard, ...]
    confusions: tuple[Confusion, ...]

    def places(self) -> list[int]:
        """Every image once, in the order in which a page's budget is spent: cells take turns, wrong ones first."""
        named = [self.losses, *(one.places for one in (*self.suspects, *self.persons))]
        cells = [(true != said, own) for each in self.confusions for (true, said), own in each.cells.items()]
        ordered = [place for own in named for place in own.tolist()]
        for wrong in (True, False):
            ordered += _in_turn([own.tolist() for is_wrong, own in cells if is_wrong is wrong])
        return list(dict.fromkeys(ordered))


def build_gallery(outcome: RunResults, layout: DataLayout) -> ReportGallery:
    """Choose the pictures.

    Args:
        outcome: the finished run.
        layout: of the data, which corrections are written for.
    """
    disagreeing = disagreeing_groups(outcome.rows, outcome.probabilities, outcome.scheme)
    return ReportGallery(
        losses=_losses(outcome),
        persons=tuple(_persons(outcome, disagreeing)),
        disagreeing=disagreeing,
        suspects=tuple(_label_issue_cards(outcome, layout)),
        confusions=tuple(_confusions(outcome)),
    )


def confused_pairs(outcome: RunResults, confusion: Confusion) -> pd.DataFrame:
    """What is taken for what, the most frequent first.

    Returns:
        A row a cell off the diagonal that is not empty: true, said (codes), truth, taken_for (names), images, persons,
        share (of the images of the true level).
    """
    counts = confusion.counts
    truth, said = _codes(outcome, confusion.name)
    persons = pd.factorize(outcome.rows["profile"])[0]
    wrong = pd.DataFrame({"true": truth, "said": said, "person": persons})[truth != said]
    pairs = wrong.groupby(["true", "said"]).agg(images=("person", "size"), persons=("person", "nunique")).reset_index()
    names = np.asarray(confusion.levels, dtype=object)
    pairs["truth"], pairs["taken_for"] = names[pairs["true"]], names[pairs["said"]]
    pairs["share"] = pairs["images"] / counts.sum(axis=1)[pairs["true"]]
    order = ["images", "share", "true", "said"]
    pairs = pairs.sort_values(order, ascending=[False, False, True, True], ignore_index=True)
    return pairs[["true", "said", "truth", "taken_for", "images", "persons", "share"]]


def _losses(outcome: RunResults) -> Codes:
    given, profiles = outcome.chance_of(outcome.labels), outcome.rows["profile"]
    order = np.lexsort((outcome.rows["image_id"].to_numpy(dtype=object), given))
    order = order[given[order] < LIKELY]
    turn = profiles.iloc[order].groupby(profiles.iloc[order]).cumcount().to_numpy()
    return order[turn < MOST_OF_ONE][:MOST_LOSSES]


def _codes(outcome: RunResults, name: str) -> tuple[Codes, Codes]:
    """True and predicted codes of the classes, or of a factor's levels as metrics.json judges them."""
    if name == JOINT:
        return outcome.labels, outcome.predicted
    said = marginals(outcome.probabilities, outcome.scheme, name).argmax(axis=1)
    return level_codes(outcome.scheme, name)[outcome.labels], said


def _confusions(outcome: RunResults) -> Iterable[Confusion]:
    sure = outcome.chance_of(outcome.predicted)
    for name in (JOINT, *outcome.scheme.factors):
        levels = outcome.scheme.classes if name == JOINT else fields(outcome.scheme)[name]
        truth, said = _codes(outcome, name)
        counts = np.bincount(truth * len(levels) + said, minlength=len(levels) ** 2).reshape(len(levels), -1)
        if name != JOINT:
            own = marginals(outcome.probabilities, outcome.scheme, name)
            sure = own[np.arange(len(own)), said]
        order = np.lexsort((np.where(truth == said, sure, -sure), said, truth))
        ends = np.flatnonzero(np.diff(truth[order] * len(levels) + said[order])) + 1
        cells = {}
        for places in np.split(order, ends) if len(order) else []:
            cell = int(truth[places[0]]), int(said[places[0]])
            cells[cell] = places[: MOST_RIGHT if cell[0] == cell[1] else MOST_WRONG]
        yield Confusion(name, tuple(levels), counts, cells)


def _persons(outcome: RunResults, disagreeing: pd.DataFrame) -> Iterable[Person]:
    shots = outcome.rows.groupby("profile", sort=False).indices
    for name, rows in islice(disagreeing.groupby("profile", sort=False), MOST_PERSONS):
        places = shots[name]
        about = tuple(rows.to_dict("records"))
        yield Person(str(name), about, places[:MOST_SHOTS], max(len(places) - MOST_SHOTS, 0))


def _label_issue_cards(outcome: RunResults, layout: DataLayout) -> Iterable[LabelIssueCard]:
    place_of = {image_id: place for place, image_id in enumerate(outcome.rows["image_id"])}
    for place in range(min(len(outcome.issues), MOST_SUSPECTS)):
        alone = outcome.issues.iloc[[place]]
        issue = alone.to_dict("records")[0]
        ids = issue["image_id"].split(BETWEEN) if issue["kind"] == "person" else [issue["image_id"]]
        ids += [issue["other_image_id"]] if issue["kind"] == "swap" else []
        # An id may hold the sign that joins them; then the images are those of the person.
        known = [place_of[name] for name in ids if name in place_of]
        if len(known) < len(ids):
            known = np.flatnonzero(outcome.rows["profile"] == issue["profile"]).tolist()
        lines = _lines(draft_corrections(alone, 1, layout))
        yield LabelIssueCard(issue, np.array(known[:MOST_SHOTS], np.int64), max(len(known) - MOST_SHOTS, 0), lines)


def _lines(drafted: pd.DataFrame) -> str:
    """Rows as they stand in corrections.csv, without its head; empty where no correction can say it."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(drafted.to_numpy(dtype=object).tolist())
    return text.getvalue().rstrip("\n")


def _in_turn(lists: Sequence[Sequence[int]]) -> list[int]:
    """The first of each list, then the second of each, and so on."""
    longest = max(map(len, lists), default=0)
    return [own[turn] for turn in range(longest) for own in lists if turn < len(own)]
