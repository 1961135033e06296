"""What can be known of data, sample and answers before any image is opened: for the start of a run and `doctor`."""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from foldvote.config.experiment import Config
from foldvote.data.entries import Entries, entries
from foldvote.data.file_listing import Split
from foldvote.data.further_columns import column_faults
from foldvote.errors import UserError, first_few
from foldvote.io.csv_files import read_csv
from foldvote.io.ids import id_faults
from foldvote.splits.folds import check_split
from foldvote.submission.answers import answer_codes, class_codes, read_answers
from foldvote.submission.sample_matching import matched_ids
from foldvote.submission.writer import answer_columns


class EarlyChecks(NamedTuple):
    """What was found.

    Attributes:
        faults: one line for each thing that would stop the run at some stage.
        notes: one line for each thing that a user may not have meant.
    """

    faults: list[str]
    notes: list[str]


def early_checks(config: Config, *, split: bool = False) -> EarlyChecks:
    """Read tables, folders, corrections, sample and true answers as the stages of a run do, and compare them.

    Images are not opened. Data that the workflow draws itself is not looked at.

    Args:
        config: the configuration.
        split: whether to split the training images as well, which takes seconds with many images. A run does so as one
            of its first jobs.
    """
    found = EarlyChecks([], [])
    if config.data.drawn is not None:
        return found
    train = _entries(config, "train", found.faults)
    test = _entries(config, "test", found.faults) if config.has_test else None
    classes = train.label_space.classes if train else None
    # Answers of groups are compared by answer_units.check_groups, at every start.
    ids = test.frame["image_id"].tolist() if test and config.submission.unit == "image" else None
    checks: list[Callable[[], None]] = [
        partial(check, config, classes, ids, found) for check in (_check_sample, _check_answers)
    ]
    if train and config.leak_check is not None and config.leak_model is not None:
        checks.append(partial(_check_columns, config, config.leak_check.columns, found))
    if split and train:
        checks.append(partial(check_split, train.frame, config.folds, config.seed))
    for check in checks:
        try:
            check()
        except UserError as error:
            found.faults.extend(error.faults)
    return EarlyChecks(*(list(dict.fromkeys(lines)) for lines in found))


def _entries(config: Config, split: Split, faults: list[str]) -> Entries | None:
    try:
        return entries(config, split)
    except UserError as error:
        faults += error.faults
        return None


def _check_sample(config: Config, classes: Sequence[str] | None, ids: Sequence[str] | None, found: EarlyChecks) -> None:
    """Compare the sample with the test images and the classes, as `write_submission` will.

    Args:
        config: the configuration.
        classes: None if they are not known, because of other faults.
        ids: of the test images; None if there are none, or they are not known.
        found: gets the faults and notes.

    Raises:
        UserError: for further faults.
    """
    form, path = config.submission, config.sample_path
    if not config.has_test:
        if path is not None:
            found.notes.append(f"submission.sample: {path} is not used, as section data names no test images")
        return
    if path is None:
        sample, source = pd.DataFrame(columns=[form.id_column]), Path("submission")
    else:
        sample, source = read_csv(path), path
    if form.id_column not in sample:
        found.faults.append(
            f"{source}: has no column {form.id_column!r} for the image ids; it has {', '.join(sample.columns)}: set "
            "submission.id_column to one of them"
        )
    elif path is not None and ids is not None:
        _check_ids(source, sample[form.id_column].tolist(), ids, found)
    if classes is None and form.answer == "probabilities":
        return
    columns = answer_columns(sample, source, classes=classes or (), **_columns(config))
    if classes is not None and form.answer == "code":
        class_codes(classes)
    if classes is not None and form.answer != "probabilities":
        found.notes.extend(_other_answers(source, sample, list(columns), classes, config))


def _check_ids(path: Path, ids: list[str], images: Sequence[str], found: EarlyChecks) -> None:
    """Compare the ids of a sample with those of the test images."""
    own, how = matched_ids(ids, images)
    remedy = "give the sample of these test images, and as submission.id_column its column of their names"
    found.faults.extend(id_faults(path, ids, ids, path))
    if not set(own) & set(images):
        shown = f"its column holds {first_few(ids)}; the images are {first_few(images)}"
        found.faults.append(f"{path}: no id is that of a test image: {shown}; {remedy}")
        return
    found.faults.extend(id_faults(path, list(dict.fromkeys(own)), images, "the test images", remedy))
    if how:
        found.notes.append(f"{path}: its ids are taken for those of the test images {how}: {ids[0]} is {own[0]}")


def _other_answers(
    path: Path, sample: pd.DataFrame, columns: Sequence[str], classes: Sequence[str], config: Config
) -> list[str]:
    """Notes of a sample's answers that are no placeholder and of another form than those that will be written."""
    answer, notes = config.submission.answer, []
    for column in (name for name in columns if name in sample):
        given = list(dict.fromkeys(text for text in sample[column] if text))
        others = [text for text in given if answer_codes([text], classes, answer)[0] < 0]
        if others and (len(given) > 1 or others[0] in classes):
            notes.append(
                f"{path}: column {column} holds {first_few(map(repr, others))}, which submission.answer: {answer} does "
                "not write; unless these are placeholders, correct submission.answer or data.classes"
            )
    return notes


def _check_answers(
    config: Config, classes: Sequence[str] | None, ids: Sequence[str] | None, found: EarlyChecks
) -> None:
    """Compare the true answers with the test images and the classes; arguments as for `_check_sample`."""
    if config.answers is not None and not config.has_test:
        found.notes.append("answers: is not used, as section data names no test images")
    if config.answers_path is not None and classes is not None and ids is not None:
        read_answers(config.answers_path, ids, "the test images", classes, **_columns(config))


def _check_columns(config: Config, names: Sequence[str], found: EarlyChecks) -> None:
    """Look for the columns of the leak check in what the manifest will hold, and in the layout's tables."""
    found.faults.extend(column_faults(config, names))


def _columns(config: Config) -> dict[str, Any]:
    return config.submission.columns
