"""One network of a student against the vote of its teachers' members: what one model costs or gains against K."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
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

    On the reserve, where there is one, one network is compared with the vote of all folds. Out of fold an image has one
    network of each model (or one of each repeat), but there are more groups.

    Args:
        inputs: predictions of students and teachers out of fold and, where there is one, of the reserve; the split and
            the classes.
        students: the teachers of each student, all models of whole classes.
        expected: number of folds of each student and teacher.
        draws: number of bootstrap draws.
        seed: the run's seed.
        path: ensemble/students.csv.

    Raises:
        UserError: if predictions are missing or do not fit each other or the split.
    """
    label_space, tables = read_label_space(inputs.classes), []
    parts = [inputs, replace(inputs, reserve=())] if inputs.reserve else [inputs]
    for single in (read_single_members(part, expected, label_space, seed) for part in parts):
        for name, teachers in students.items():
            tables.append(students_rows(single, name, teachers, draws, seed))
            log(_in_words(tables[-1].iloc[0], tables[-1].iloc[-1]))
    if not inputs.reserve:
        log("students: the vote of all folds can only be scored on a reserve; set folds.reserve to compare with it")
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
    where = "on the reserve" if one["scored_on"] == "reserve" else "out of fold"
    return (
        f"students: {where}, one network of {one['student']} has macro-F1 {one['macro_f1']:.3f}, {vote['networks']} "
        f"of {vote['models']} {vote['macro_f1']:.3f}; difference {one['macro_f1_difference']:+.3f} (95 % interval "
        f"{one['macro_f1_difference_low']:+.3f} to {one['macro_f1_difference_high']:+.3f}, "
        f"{one['groups']} groups)"
    )
