"""Which images a report shows, and in what order."""

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
JOINT = "class"  # name of the confusion matrix of the classes, beside those of the factors
MOST_LOSSES, MOST_PER_PERSON = 36, 3
LIKELY = 0.5  # top losses are images whose true class has a smaller probability than this
MOST_PERSONS = 24
MOST_LABEL_ISSUES = 60
MOST_IMAGES = 14  # of one person
MOST_WRONG, MOST_RIGHT = 60, 24  # images of one cell of a confusion matrix


@dataclass(frozen=True)
class Confusion:
    """A confusion matrix and the images of its cells.

    Attributes:
        name: `class`, or the name of a factor.
        levels: level names, in the order of their codes.
        counts: int64 (levels, levels); rows are true levels, columns are predicted levels.
        cells: positions in RunResults.rows by (true, predicted). A wrong cell has at most MOST_WRONG images, the most
            confident first; a right cell has at most MOST_RIGHT, the least confident first.
    """

    name: str
    levels: tuple[str, ...]
    counts: npt.NDArray[np.int64]
    cells: dict[tuple[int, int], Codes]


@dataclass(frozen=True)
class Person:
    """A person whose images are predicted differently in a field that is the same for all of them, such as gender.

    Attributes:
        name: the person's profile.
        disagreements: rows of group_consistency.disagreeing_groups, one per field.
        positions: of at most MOST_IMAGES images in RunResults.rows.
        more: how many images are not shown.
    """

    name: str
    disagreements: tuple[dict[str, Any], ...]
    positions: Codes
    more: int


@dataclass(frozen=True)
class LabelIssueCard:
    """A label that is likely wrong.

    Attributes:
        issue: its row of label_issues.LABEL_ISSUES.
        positions: of at most MOST_IMAGES images in RunResults.rows.
        more: how many images are not shown.
        lines: the lines of corrections.csv that would correct it; empty if no correction can.
    """

    issue: dict[str, Any]
    positions: Codes
    more: int
    lines: str


@dataclass(frozen=True)
class ReportGallery:
    """The images of a report, as positions in RunResults.rows.

    Attributes:
        losses: images whose true class has the smallest probability, below LIKELY; at most MOST_PER_PERSON of a person.
        persons: persons with disagreeing predictions, the worst first; at most MOST_PERSONS.
        disagreeing: all rows of group_consistency.disagreeing_groups.
        label_issues: the likeliest label errors, at most MOST_LABEL_ISSUES.
        confusions: of the classes, then of each factor.
    """

    losses: Codes
    persons: tuple[Person, ...]
    disagreeing: pd.DataFrame
    label_issues: tuple[LabelIssueCard, ...]
    confusions: tuple[Confusion, ...]

    def positions(self) -> list[int]:
        """Every image once, the most important first: where the page's budget is spent, the rest is left out.

        Losses, label issues and persons come first, then the cells of the confusion matrices in turn, wrong ones first.
        """
        cards: tuple[LabelIssueCard | Person, ...] = (*self.label_issues, *self.persons)
        named = [self.losses, *(card.positions for card in cards)]
        cells = [(true != predicted, own) for each in self.confusions for (true, predicted), own in each.cells.items()]
        ordered = [position for own in named for position in own.tolist()]
        for wrong in (True, False):
            ordered += _round_robin([own.tolist() for is_wrong, own in cells if is_wrong is wrong])
        return list(dict.fromkeys(ordered))


def build_gallery(run: RunResults, layout: DataLayout) -> ReportGallery:
    """Choose the images of a report.

    Args:
        run: the finished run.
        layout: the layout of the data, which corrections are drafted for.
    """
    disagreeing = disagreeing_groups(run.rows, run.probabilities, run.label_space)
    return ReportGallery(
        losses=_top_losses(run),
        persons=tuple(_persons(run, disagreeing)),
        disagreeing=disagreeing,
        label_issues=tuple(_label_issue_cards(run, layout)),
        confusions=tuple(_confusions(run)),
    )


def confused_pairs(run: RunResults, confusion: Confusion) -> pd.DataFrame:
    """The pairs of levels that are confused, the most frequent first.

    Args:
        run: the finished run.
        confusion: one of its confusion matrices.

    Returns:
        One row per non-empty cell off the diagonal: true, predicted (codes), truth, taken_for (names), images, persons,
        share (of the images of the true level).
    """
    counts = confusion.counts
    truth, predicted = _codes(run, confusion.name)
    persons = pd.factorize(run.rows["profile"])[0]
    wrong = pd.DataFrame({"true": truth, "predicted": predicted, "person": persons})[truth != predicted]
    cells = wrong.groupby(["true", "predicted"])
    pairs = cells.agg(images=("person", "size"), persons=("person", "nunique")).reset_index()
    names = np.asarray(confusion.levels, dtype=object)
    pairs["truth"], pairs["taken_for"] = names[pairs["true"]], names[pairs["predicted"]]
    pairs["share"] = pairs["images"] / counts.sum(axis=1)[pairs["true"]]
    order = ["images", "share", "true", "predicted"]
    pairs = pairs.sort_values(order, ascending=[False, False, True, True], ignore_index=True)
    return pairs[["true", "predicted", "truth", "taken_for", "images", "persons", "share"]]


def _top_losses(run: RunResults) -> Codes:
    p_truth, profiles = run.probability_of(run.labels), run.rows["profile"]
    order = np.lexsort((run.rows["image_id"].to_numpy(dtype=object), p_truth))
    order = order[p_truth[order] < LIKELY]
    number = profiles.iloc[order].groupby(profiles.iloc[order]).cumcount().to_numpy()  # among the person's own
    return order[number < MOST_PER_PERSON][:MOST_LOSSES]


def _codes(run: RunResults, name: str) -> tuple[Codes, Codes]:
    """True and predicted codes of the classes, or of a factor's levels, scored as in metrics.json."""
    if name == JOINT:
        return run.labels, run.predicted
    predicted = marginals(run.probabilities, run.label_space, name).argmax(axis=1)
    return level_codes(run.label_space, name)[run.labels], predicted


def _confusions(run: RunResults) -> Iterable[Confusion]:
    confidence = run.probability_of(run.predicted)
    for name in (JOINT, *run.label_space.factors):
        levels = run.label_space.classes if name == JOINT else fields(run.label_space)[name]
        truth, predicted = _codes(run, name)
        counts = np.bincount(truth * len(levels) + predicted, minlength=len(levels) ** 2)
        if name != JOINT:
            own = marginals(run.probabilities, run.label_space, name)
            confidence = own[np.arange(len(own)), predicted]
        order = np.lexsort((np.where(truth == predicted, confidence, -confidence), predicted, truth))
        ends = np.flatnonzero(np.diff(truth[order] * len(levels) + predicted[order])) + 1
        cells = {}
        for positions in np.split(order, ends) if len(order) else []:
            cell = int(truth[positions[0]]), int(predicted[positions[0]])
            cells[cell] = positions[: MOST_RIGHT if cell[0] == cell[1] else MOST_WRONG]
        yield Confusion(name, tuple(levels), counts.reshape(len(levels), -1), cells)


def _persons(run: RunResults, disagreeing: pd.DataFrame) -> Iterable[Person]:
    positions_of = run.rows.groupby("profile", sort=False).indices
    for name, rows in islice(disagreeing.groupby("profile", sort=False), MOST_PERSONS):
        positions = positions_of[name]
        fields_of_person = tuple(rows.to_dict("records"))
        yield Person(str(name), fields_of_person, positions[:MOST_IMAGES], max(len(positions) - MOST_IMAGES, 0))


def _label_issue_cards(run: RunResults, layout: DataLayout) -> Iterable[LabelIssueCard]:
    position_of = {image_id: position for position, image_id in enumerate(run.rows["image_id"])}
    for place in range(min(len(run.issues), MOST_LABEL_ISSUES)):
        row = run.issues.iloc[[place]]
        issue = row.to_dict("records")[0]
        ids = issue["image_id"].split(BETWEEN) if issue["kind"] == "person" else [issue["image_id"]]
        ids += [issue["other_image_id"]] if issue["kind"] == "swap" else []
        # An id may contain the separator of a list of ids; then all images of the person are shown.
        known = [position_of[name] for name in ids if name in position_of]
        if len(known) < len(ids):
            known = np.flatnonzero(run.rows["profile"] == issue["profile"]).tolist()
        lines = _csv_lines(draft_corrections(row, 1, layout))
        yield LabelIssueCard(issue, np.array(known[:MOST_IMAGES], np.int64), max(len(known) - MOST_IMAGES, 0), lines)


def _csv_lines(corrections: pd.DataFrame) -> str:
    """The rows as they are written in corrections.csv, without the header; empty if there are none."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(corrections.to_numpy(dtype=object).tolist())
    return text.getvalue().rstrip("\n")


def _round_robin(lists: Sequence[Sequence[int]]) -> list[int]:
    """The first item of each list, then the second of each, and so on."""
    longest = max(map(len, lists), default=0)
    return [own[turn] for turn in range(longest) for own in lists if turn < len(own)]
