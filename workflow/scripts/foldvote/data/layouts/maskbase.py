"""The layouts `maskbase` and `demo`: a table of persons, seven shots of each, a table of test images."""

import os
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import pandas as pd
import pyarrow as pa

from foldvote.config.data import MaskbaseLayout
from foldvote.data.file_listing import Split
from foldvote.data.label_space import LabelSpace, factor_label_space
from foldvote.data.layouts.base import Correction, RawColumns
from foldvote.data.layouts.folders import group_pattern
from foldvote.data.layouts.maskbase_corrections import IGNORED, correct_person, draft_person
from foldvote.data.layouts.maskbase_labels import GENDERS, MASKS, OLDEST, SHOTS, age_band, age_in_years, age_levels
from foldvote.errors import UserError, did_you_mean, raise_all
from foldvote.io.csv_files import read_user_table
from foldvote.io.names import paths_on_disk
from foldvote.io.paths import is_ignored, relative_fault, tidy
from foldvote.runtime.job_log import log


@dataclass(frozen=True)
class MaskbaseFolders:
    """The folders of the home task; a class is mask state, gender and age band. Implements `DataLayout`."""

    raw_columns: ClassVar[RawColumns] = (("person_id", pa.string()), ("age_years", pa.int16()))
    ignored_fields: ClassVar[frozenset[str]] = IGNORED
    section: MaskbaseLayout

    def entries(self, root: Path, split: Split, results: Path) -> tuple[pd.DataFrame, set[str]]:  # noqa: ARG002
        """The rows of `maskbase_train` or `maskbase_test`, and no class names, as the classes are fixed."""
        read = maskbase_train if split == "train" else maskbase_test
        return read(root, self.section), set()

    def label_space(self, found: set[str]) -> LabelSpace:  # noqa: ARG002 - the classes are fixed
        """18 classes: `mask*6 + gender*3 + age`."""
        ages = age_levels(self.section.age_borders)
        return factor_label_space(dict(zip(self.section.factor_names, (MASKS, GENDERS, ages), strict=True)))

    def correct(self, frame: pd.DataFrame, correction: Correction, classes: Collection[str]) -> pd.Series:  # noqa: ARG002 - the classes are fixed
        """Correct a person in place; the field is gender, age or shots. Returns the mask of the changed rows."""
        return correct_person(frame, correction, self.section.age_borders)

    def draft(self, issue: Mapping[str, Any]) -> list[Correction]:
        """Turn a label issue into a correction of a person or of two shots."""
        return draft_person(issue)


def maskbase_train(root: Path, layout: MaskbaseLayout) -> pd.DataFrame:
    """List the training images: seven rows per person, in the order of the table.

    Args:
        root: the data folder.
        layout: the section `data` of the configuration.

    Returns:
        Columns image_id (`<path>/<file name>`), path, profile (the person's `path`), group, mask, gender, age,
        person_id (the text of `id`), age_years (Int16).

    Raises:
        UserError: for every fault of the table and of the persons' folders, with row numbers.
    """
    table_path = root / layout.train_table
    table = read_user_table(table_path, ["id", "gender", "age", "path"])
    compiled = group_pattern(layout.group_pattern)
    table["path"] = [tidy(text) if not relative_fault(text) else text for text in table["path"]]
    matches = [compiled.search(text) for text in table["id"]]
    table["group"] = [(match.group(1) or "") if match else "" for match in matches]
    raise_all(_person_faults(table_path, table, layout.group_pattern))
    table["folder"] = paths_on_disk(root / layout.train_images, table["path"].tolist())
    rows, faults, surplus = [], [], []
    for number, person in enumerate(table.to_dict("records"), start=2):
        shots, wrong, others = _shots(root / layout.train_images / person["folder"])
        faults += [f"{table_path}, row {number}: {fault}" for fault in wrong]
        surplus += others
        rows += [_entry(layout, person, stem, name) for stem, name in shots.items()]
    raise_all(faults)
    if surplus:
        log(f"{len(surplus)} files bear none of the names {', '.join(SHOTS)} and are left out, such as {surplus[0]!r}")
    return pd.DataFrame(rows).astype({"age_years": "Int16"})


def maskbase_test(root: Path, layout: MaskbaseLayout) -> pd.DataFrame:
    """List the test images: one row per image, in the order of the table; image_id is its ImageID.

    Args:
        root: the data folder.
        layout: the section `data` of the configuration.

    Returns:
        The columns of `maskbase_train`; all but image_id and path are null.

    Raises:
        UserError: for every fault of the table and every missing image, with row numbers.
    """
    table_path = root / str(layout.test_table)
    ids = read_user_table(table_path, ["ImageID"])["ImageID"]
    folder = root / layout.test_images
    _names(folder)  # which says it if the folder cannot be read
    files = paths_on_disk(folder, [name if not relative_fault(name) else "" for name in ids])
    faults: list[str] = []
    first: dict[str, int] = {}
    for row, (name, file) in enumerate(zip(ids, files, strict=True), start=2):
        fault = relative_fault(name)
        if fault:
            faults.append(f"{table_path}, row {row}: the ImageID {name!r} {fault}")
        elif first.setdefault(name, row) != row:
            faults.append(
                f"{table_path}, row {row}: the ImageID {name!r} stands in row {first[name]} already; keep one"
            )
        elif not os.path.lexists(folder / file):
            faults.append(f"{table_path}, row {row}: there is no file {name!r} in {folder}; add it or remove the row")
    raise_all(faults)
    frame = pd.DataFrame({"image_id": ids, "path": [tidy(f"{layout.test_images}/{name}") for name in files]})
    empty = dict.fromkeys(["profile", "group", "mask", "gender", "age", "person_id"])
    return frame.assign(**empty, age_years=pd.Series(pd.NA, index=frame.index, dtype="Int16"))


def _person_faults(table_path: Path, table: pd.DataFrame, pattern: str) -> list[str]:
    faults: list[str] = []
    first: dict[str, int] = {}
    for row, person in enumerate(table.to_dict("records"), start=2):
        where, path = f"{table_path}, row {row}:", person["path"]
        fault = relative_fault(path)
        if fault:
            faults.append(f"{where} the path {path!r} {fault}")
        elif first.setdefault(path, row) != row:
            faults.append(f"{where} the path {path!r} stands in row {first[path]} already; keep one")
        if person["gender"] not in GENDERS:
            guess = did_you_mean(person["gender"], GENDERS) or f"; use {' or '.join(GENDERS)}"
            faults.append(f"{where} the gender {person['gender']!r} is not known{guess}")
        if age_in_years(person["age"]) is None:
            faults.append(f"{where} the age {person['age']!r} is not a whole number from 0 to {OLDEST}; correct it")
        if not person["group"]:
            faults.append(
                f"{where} data.group_pattern {pattern!r} finds no group in the id {person['id']!r}; correct one of both"
            )
    return faults


def _shots(folder: Path) -> tuple[dict[str, str], list[str], list[str]]:
    """File name by shot, in the order of SHOTS; faults; and paths of files that are no shot."""
    if not folder.is_dir():
        return {}, [f"there is no folder {folder}; add it or remove the row"], []
    of_stem: dict[str, list[str]] = {}
    for name in sorted(_names(folder)):
        of_stem.setdefault(Path(name).stem, []).append(name)
    faults = []
    for stem in SHOTS:
        names = of_stem.get(stem, [])
        if not names:
            faults.append(f"{folder}: the shot {stem} is missing; add it or remove the row")
        elif len(names) > 1:
            faults.append(f"{folder}: the shot {stem} is there {len(names)} times ({', '.join(names)}); keep one")
    others = [str(folder / name) for stem, names in of_stem.items() if stem not in SHOTS for name in names]
    return ({} if faults else {stem: of_stem[stem][0] for stem in SHOTS}), faults, others


def _entry(layout: MaskbaseLayout, person: dict[str, str], stem: str, name: str) -> dict[str, object]:
    age = age_in_years(person["age"])
    assert age is not None
    return {
        "image_id": f"{person['path']}/{name}",
        "path": tidy(f"{layout.train_images}/{person['folder']}/{name}"),
        "profile": person["path"],
        "group": person["group"],
        "mask": SHOTS[stem],
        "gender": person["gender"],
        "age": age_band(age, layout.age_borders),
        "person_id": person["id"],
        "age_years": age,
    }


def _names(folder: Path) -> list[str]:
    try:
        return [name for name in os.listdir(folder) if not is_ignored(name)]  # noqa: PTH208 - names are all it needs
    except OSError as error:
        raise UserError(
            f"{folder}: cannot be read ({error.strerror}); correct the configuration or the folder"
        ) from None
