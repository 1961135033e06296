"""What a submission answers: each image, or each group, such as a patient, from all of its images."""

from pathlib import Path

import pandas as pd

from foldvote.config.experiment import Config
from foldvote.data.entries import entries
from foldvote.data.layouts.folders import group_pattern
from foldvote.data.manifest_table import ONLY
from foldvote.errors import UserError, first_few, raise_all
from foldvote.io.csv_files import read_csv
from foldvote.io.ids import id_faults
from foldvote.submission.answers import read_answers

_IMAGE = "or set submission.unit: image"


def check_groups(config: Config) -> None:
    """Check before any training that groups can have answers; nothing is checked with `submission.unit: image`.

    Args:
        config: the configuration.

    Raises:
        UserError: if the images of a training group have different classes, a test image has no group, or the sample or
            the true answers name other groups; all at once.
    """
    if config.submission.unit == "image":
        return
    train = entries(config, "train")
    rows = train.frame
    faults = label_faults(rows[~rows[ONLY]] if ONLY in rows else rows)  # no answer is given for the others
    if config.has_test:
        try:
            names = answered_names(config, entries(config, "test").frame)
            if config.sample_path is not None:
                column = config.submission.id_column
                ids = read_csv(config.sample_path, required=[column])[column].tolist()
                remedy = "give the sample of these groups, and as submission.id_column its column of their names"
                faults += id_faults(config.sample_path, ids, names, "the test groups", remedy)
            if config.answers_path is not None:
                classes = train.label_space.classes
                read_answers(config.answers_path, names, "the test groups", classes, **config.submission.columns)
        except UserError as error:
            faults += error.faults
    raise_all(faults)


def answered_names(config: Config, test: pd.DataFrame) -> list[str]:
    """The names that a submission has rows for.

    Args:
        config: the configuration.
        test: the test images, with the columns image_id and group.

    Returns:
        With `submission.unit: image` the ids in the order of the table, else the groups, sorted.

    Raises:
        UserError: if a test image has no group.
    """
    if config.submission.unit == "image":
        return test["image_id"].tolist()
    where = config.tables("test") or [config.root / str(config.data.image_folder("test"))]
    return sorted(set(groups_of_test(test, config.data.test_group_pattern, where[0])))


def groups_of_test(test: pd.DataFrame, pattern: str | None, source: str | Path) -> list[str]:
    """The group of each test image.

    Args:
        test: the test images, with the columns image_id and group.
        pattern: the regular expression that finds the group in the image_id; None: the column group has it.
        source: where the test images are listed, for messages.

    Raises:
        UserError: if an image has no group.
    """
    if pattern is None:
        groups = test["group"].fillna("").tolist()
        remedy = "fill the group column (data.group) of its test rows"
    else:
        found = map(group_pattern(pattern).search, test["image_id"])
        groups = [(match.group(1) or "") if match else "" for match in found]
        remedy = f"name the files so that data.group_pattern {pattern!r} finds their group"
    without = [name for name, group in zip(test["image_id"], groups, strict=True) if not group]
    if without:
        raise UserError(
            f"{source}: {len(without)} of {len(groups)} test images have no group: {first_few(without)}; "
            f"submission.unit: group answers groups: {remedy}, {_IMAGE}"
        )
    return groups


def label_faults(train: pd.DataFrame) -> list[str]:
    """A line that names the groups whose images have different classes; none where every group has one class.

    Args:
        train: the training images, with the columns group and class_name.
    """
    pairs = train[["group", "class_name"]].drop_duplicates()
    several = pairs[pairs.duplicated("group", keep=False)].sort_values(["group", "class_name"])
    if several.empty:
        return []
    named = [f"{name} ({first_few(own['class_name'])})" for name, own in several.groupby("group", sort=True)]
    return [
        f"submission.unit: group: the images of {len(named)} groups have different classes: {first_few(named)}; a "
        f"group with one answer has one class: correct the labels or the groups, {_IMAGE}"
    ]
