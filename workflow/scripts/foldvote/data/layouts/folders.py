"""The layout `folders`: images that lie in one folder per class."""

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import pandas as pd

from foldvote.config.data import FoldersLayout
from foldvote.data.file_listing import FolderFiles, Split, folder_faults, folder_files
from foldvote.data.label_space import LABEL, LabelSpace, named_label_space
from foldvote.data.layouts.base import Correction, RawColumns
from foldvote.data.layouts.named_classes import correct_field, draft_field
from foldvote.errors import UserError, did_you_mean, raise_all
from foldvote.io.names import plain_name
from foldvote.io.paths import relative_fault, tidy


@dataclass(frozen=True)
class ClassFolders:
    """One folder per class; a correction changes an image or a group. Implements `DataLayout`."""

    raw_columns: ClassVar[RawColumns] = ()
    ignored_fields: ClassVar[frozenset[str]] = frozenset()
    section: FoldersLayout

    def entries(self, root: Path, split: Split, results: Path) -> tuple[pd.DataFrame, set[str]]:
        """One row per image, sorted by path, and the names of the class folders.

        Args:
            root: the data folder.
            split: `train` or `test`.
            results: a folder that holds no data.

        Returns:
            Columns image_id (path below the train or test folder), path, profile, group, class_name (null for test);
            and the class folders found.

        Raises:
            UserError: if a folder is missing or empty, a class folder is not configured, an image is in no class
                folder, or a path has no group.
        """
        training = _listed(root, self.section, "train", results)
        _check_class_folders(root / self.section.train, training, self.section.classes)
        top = self.section.train if split == "train" else str(self.section.test)
        listed = training if split == "train" else _listed(root, self.section, "test", results)
        files = [path for path, _ in listed.files]
        if not files:
            raise UserError(f"{root / top}: holds no images; set data.{split} to the folder that does")
        raise_all(f"{root / top}: the file name {path!r} {fault}" for path in files if (fault := relative_fault(path)))
        groups = _groups(files, self.section.group_pattern, root / top) if split == "train" else [None] * len(files)
        frame = pd.DataFrame(
            {
                "image_id": files,
                "path": [tidy(f"{top}/{path}") for path in files],
                "profile": groups,
                "group": groups,
                "class_name": [path.split("/", 1)[0] if split == "train" else None for path in files],
            }
        )
        return frame, set(training.classes)

    def label_space(self, found: set[str]) -> LabelSpace:
        """The configured classes, or the names of the class folders if none are configured."""
        return named_label_space(self.section.classes, found)

    def correct(self, frame: pd.DataFrame, correction: Correction, classes: Collection[str]) -> pd.Series:
        """Correct the class of an image or a group in place; the field is `label`. Returns the mask of its rows."""
        return correct_field(frame, correction, {LABEL: ("class_name", self.section.classes or sorted(classes))})

    def draft(self, issue: Mapping[str, Any]) -> list[Correction]:
        """Turn a label issue into corrections of images or groups."""
        return draft_field(issue, LABEL)


def group_pattern(pattern: str) -> re.Pattern[str]:
    """The compiled `data.group_pattern`.

    Raises:
        UserError: if it is no regular expression, or has no group in parentheses.
    """
    try:
        compiled = re.compile(pattern)
    except re.error as error:
        raise UserError(f"data.group_pattern: {pattern!r} is no regular expression: {error}; correct it") from None
    if not compiled.groups:
        raise UserError(f"data.group_pattern: {pattern!r} has no (parentheses) around what names the group; add them")
    return compiled


def _listed(root: Path, section: FoldersLayout, split: Split, results: Path) -> FolderFiles:
    raise_all(folder_faults(root, section, results))
    try:
        return folder_files(root, section, split, results)
    except OSError as error:
        raise UserError(f"{error.filename or root}: cannot be read ({error.strerror}); correct the path") from None


def _check_class_folders(top: Path, listed: FolderFiles, classes: list[str] | None) -> None:
    faults = [
        f"{top / name}: an image beside the class folders; move it into its class or away" for name in listed.loose
    ]
    if classes is None:
        faults += [
            f"{top / name}: a class folder without images; fill it or delete it, or list all classes in data.classes"
            for name in listed.empty
        ]
    else:
        faults += [
            f"{top / name}: a folder that is not in data.classes{did_you_mean(name, classes) or '; add it there'}"
            for name in listed.classes
            if plain_name(name) not in classes
        ]
    raise_all(faults)


def _groups(files: list[str], pattern: str, top: Path) -> list[str]:
    compiled = group_pattern(pattern)
    found = [compiled.search(path.split("/", 1)[1]) for path in files]
    raise_all(
        f"{top / path}: data.group_pattern {pattern!r} finds no group in it; correct the pattern or rename the file"
        for path, match in zip(files, found, strict=True)
        if not match or not match.group(1)
    )
    return [match.group(1) for match in found if match]
