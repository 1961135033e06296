"""What the command line of a bundle reads and writes: images, samples, submissions, tables of probabilities."""

import csv
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from foldvote.errors import UserError
from foldvote.evaluation.conformal import prediction_sets
from foldvote.io.paths import files_below
from foldvote.submission.sample_matching import DECIMALS, class_columns, wide_texts

Below = tuple[str | Path, str]  # a folder, and the path of a file below it, which no symlink may leave


class Answers:
    """The answers of images as they come: the cells of the submission, and rows of the table of probabilities."""

    def __init__(
        self,
        classes: Sequence[str],
        settings: Mapping[str, Any],
        columns: Mapping[str, int],
        names: Sequence[str],
        proba: Path | None,
    ) -> None:
        """Set out the answers.

        Args:
            classes: names of the classes in the order of their codes.
            settings: the content of settings.json.
            columns: of the submission, see `answer_columns`.
            names: ids of the images.
            proba: the table of probabilities to write, where it is wanted.
        """
        self._classes, self._columns, self._names = classes, columns, names
        self._texts, self._least = settings["submission"]["texts"], settings["least_probability"]
        self._cells: dict[int, list[str]] = {}
        self._proba = proba
        self._waiting = proba.with_name(f".{proba.name}.{os.getpid()}.tmp") if proba else None

    def __enter__(self) -> "Answers":
        self._file = self._waiting.open("w", encoding="utf-8", newline="") if self._waiting else None
        if self._file:
            sets = [] if self._least is None else ["set"]
            head = ["image_id", "prediction", "prediction_name", *sets, *(f"p_{name}" for name in self._classes)]
            csv.writer(self._file, lineterminator="\n").writerow(head)
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        if self._file and self._waiting and self._proba:
            self._file.close()
            if kind is None:
                self._waiting.replace(self._proba)
            self._waiting.unlink(missing_ok=True)

    def add(self, rows: Sequence[int], probabilities: npt.NDArray[np.float64], codes: npt.NDArray[np.integer]) -> None:
        """Take the predictions of some images.

        Args:
            rows: the positions of the images.
            probabilities: float64 (rows, classes), in the order of the codes.
            codes: of the predicted classes, shape (rows,).
        """
        if self._texts is None:
            cells = [list(row) for row in zip(*wide_texts(probabilities, self._columns).values(), strict=True)]
        else:
            cells = [[self._texts[code]] for code in codes]
        self._cells |= dict(zip(rows, cells, strict=True))
        if self._file:
            sets = None if self._least is None else prediction_sets(probabilities, codes, self._least)
            writer = csv.writer(self._file, lineterminator="\n")
            for at, (row, code) in enumerate(zip(rows, codes, strict=True)):
                own = probabilities[at]
                shown = [] if sets is None else [self._set_text(own, sets[at])]
                numbers = [f"{value:.{DECIMALS}f}" for value in own]
                writer.writerow([self._names[row], int(code), self._classes[code], *shown, *numbers])

    def _set_text(self, probabilities: npt.NDArray[np.float64], chosen: npt.NDArray[np.bool_]) -> str:
        """The classes of a prediction set, the likeliest first."""
        return "|".join(self._classes[code] for code in np.argsort(-probabilities, kind="stable") if chosen[code])

    def table(
        self, header: list[str], rows: list[list[str]], *, keep: bool
    ) -> tuple[list[str], Iterator[Sequence[str]]]:
        """The header and the rows of the submission.

        Args:
            header: of the sample.
            rows: of the sample.
            keep: whether images that were left out keep the cells of the sample; otherwise they have no row.
        """
        columns = [*header, *(name for name in self._columns if name not in header)]
        places = [columns.index(name) for name in self._columns]

        def filled() -> Iterator[Sequence[str]]:
            for number, row in enumerate(rows):
                whole = [*row, *[""] * (len(columns) - len(row))]
                if number in self._cells:
                    for place, text in zip(places, self._cells[number], strict=True):
                        whole[place] = text
                elif not keep:
                    continue
                yield whole

        return columns, filled()


def images_of(images: Path, root: Path | None, id_column: str) -> tuple[list[str], list[Below]]:
    """Ids and files: of everything in a folder, sorted by path, or of the rows of a table.

    Raises:
        UserError: if there is no such folder or table.
    """
    if images.is_dir():
        names = sorted(name for name, _ in files_below(images))
        if not names:
            raise UserError(f"{images}: holds no files; give the folder of the images")
        return names, [(images, name) for name in names]
    if images.suffix.lower() != ".csv":
        raise UserError(f"{images}: is neither a folder nor a .csv table; give one of these")
    header, rows = read_csv(images, None if {"path", "image_id"} & _header(images) else id_column)
    paths = header.index("path" if "path" in header else id_column if id_column in header else "image_id")
    ids = next((header.index(name) for name in (id_column, "image_id") if name in header), paths)
    return [row[ids] for row in rows], [(root or images.parent, row[paths]) for row in rows]


def answer_columns(header: Sequence[str], form: Mapping[str, Any], source: Path) -> dict[str, int]:
    """The columns of the answers; for probabilities with the class of each."""
    others = [name for name in header if name != form["id_column"]]
    if form["texts"] is None:
        return class_columns(others or form["forms"][0], form["forms"], source)
    if others and form["answer_column"] not in others:
        raise UserError(
            f"{source}: has no column {form['answer_column']!r} for the answers; it has {', '.join(header)}"
        )
    return {form["answer_column"]: -1}


def _header(path: Path) -> set[str]:
    return set(read_csv(path, None)[0])


def read_csv(path: Path, column: str | None) -> tuple[list[str], list[list[str]]]:
    """Header and rows of a CSV file, every cell as text.

    Raises:
        UserError: naming the file and what is wrong with it.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            header, *rows = [row for row in csv.reader(file, strict=True) if row] or [[]]
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror or error}); give an existing file") from None
    except (UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{path}: is no CSV file in UTF-8 ({error}); save it so") from None
    if column is not None and column not in header:
        raise UserError(f"{path}: the column {column!r} is missing; it has {', '.join(header) or 'none'}")
    uneven = next((number for number, row in enumerate(rows) if len(row) != len(header)), None)
    if uneven is not None or not rows:
        where = f"row {uneven + 2} has another number of cells than the header" if uneven is not None else "has no rows"
        raise UserError(f"{path}: {where}; correct it")
    return header, rows


def write_csv(path: Path, header: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Write a CSV file whole or not at all."""
    waiting = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with waiting.open("w", encoding="utf-8", newline="") as file:
            csv.writer(file, lineterminator="\n").writerows([header, *rows])
        waiting.replace(path)
    except OSError as error:
        raise UserError(f"{path}: cannot be written ({error.strerror or error}); choose another place") from None
    finally:
        waiting.unlink(missing_ok=True)
