"""One network of a student against the vote of its teachers' members: what one model costs or gains against K."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from foldvote.data.label_space import read_label_space
from foldvote.ensemble.frontier import JOIN, Subset
from foldvote.ensemble.inputs import EnsembleInputs
from foldvote.ensemble.single_members import SingleMembers, read_single_members
from foldvote.evaluation.bootstrap import GroupSums, group_sums
from foldvote.evaluation.paired_scores import mean_sums, paired_scores
from foldvote.io.csv_files import write_csv
from foldvote.runtime.job_log import log


def write_students(
    inputs: EnsembleInputs,
    students: Mapping[str, Sequence[str]],
    expected: Mapping[str, int],
    draws: int,
    seed: int,
    path: Path,
) -> None:
    """Compare every student with its teachers.

    Args:
        inputs: predictions of the reserve or, where there is none, those out of fold, of students and teachers; the
            split and the classes.
        students: the teachers of each student, all models of whole classes.
        expected: number of folds of each student and teacher.
        draws: number of bootstrap draws.
        seed: the run's seed.
        path: ensemble/students.csv.

    Raises:
        UserError: if predictions are missing or do not fit each other or the split.
    """
    single = read_single_members(inputs, expected, read_label_space(inputs.classes), seed)
    tables = [students_rows(single, name, teachers, draws, seed) for name, teachers in students.items()]
    for table in tables:
        log(_in_words(table.iloc[0], table.iloc[-1]))
    write_csv(pd.concat(tables).round(6), path)


def students_rows(single: SingleMembers, student: str, teachers: Sequence[str], draws: int, seed: int) -> pd.DataFrame:
    """The rows of ensemble/students.csv of one student.

    Args:
        single: what single members predict.
        student: its model.
        teachers: their models.
        draws: number of bootstrap draws.
        seed: the run's seed.

    Returns:
        Student and teachers, each with one network per model and with all that predict an image, the teachers' vote
        last; out of fold without repeats there is one row of each. Columns: `student`, `predicts` (`student` or
        `teachers`), `models`, `folds`, `networks`, `scored_on`, `images`, `groups`; and those of `paired_scores`, with
        differences to the last row. The scores of one network are means over all members.
    """
    sides = {"student": (student,), "teachers": tuple(sorted(teachers))}
    sizes = sorted({1, single.members})
    rows = {f"{side}/{size}": (side, size) for side in sides for size in sizes}
    sums = {name: _sums(single, sides[side], size) for name, (side, size) in rows.items()}
    scored = paired_scores(sums, list(rows)[-1], draws, seed)
    images = {"images": len(single.rows.labels), "groups": len(np.unique(single.rows.groups))}
    described = [
        {"student": student, "predicts": side, "models": JOIN.join(sides[side]), "folds": size}
        | {"networks": size * len(sides[side]), "scored_on": single.part, **images, **scored[name]}
        for name, (side, size) in rows.items()
    ]
    return pd.DataFrame(described)


def _sums(single: SingleMembers, models: tuple[str, ...], size: int) -> GroupSums:
    """The sums by group of the mean of all members, or of single ones, on average over these."""
    draws = [tuple(range(single.members))] if size > 1 else [(member,) for member in range(single.members)]
    found = []
    for members in draws:
        probabilities = Subset(models, single.views, size).probabilities(single.mean_of(members))
        found.append(group_sums(single.rows.labels, probabilities, single.rows.groups, probabilities.shape[1]))
    return mean_sums(found)


def _in_words(one: pd.Series, vote: pd.Series) -> str:
    """The line of the log: one network of the student against all that the teachers have."""
    where = "the reserve" if one["scored_on"] == "reserve" else "out-of-fold predictions"
    text = (
        f"students: on {where}, one network of {one['student']} has macro-F1 {one['macro_f1']:.3f}, {vote['networks']} "
        f"of {vote['models']} have {vote['macro_f1']:.3f}; difference {one['macro_f1_difference']:+.3f} (95 % interval "
        f"{one['macro_f1_difference_low']:+.3f} to {one['macro_f1_difference_high']:+.3f})"
    )
    if one["scored_on"] == "reserve":
        return text
    return f"{text}. That is no vote of all folds, which only the reserve can score; set folds.reserve"
