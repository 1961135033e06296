"""Writes the demo data: the folders and tables of the home task, including its quirks, with drawn faces."""

import csv
import io
import shutil
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path

import cv2
import numpy as np

from demo_faces.faces import invent_person, invent_shot, invent_visit
from demo_faces.portrait import paint
from demo_faces.roster import RACE, WORN, Entry, corrections, enrol, extensions, picture_name
from foldvote.config.image_size import parse_size
from foldvote.data.layouts.maskbase_labels import MASKS
from foldvote.errors import UserError
from foldvote.io.files import write_bytes, write_json
from foldvote.runtime.parallel_map import map_processes
from foldvote.runtime.seeding import derive, generator

MARK = ".foldvote-demo.json"  # marks a folder that this module wrote and may replace
PERSONS_A_PROCESS = 8  # with fewer persons a further process costs more time than it saves
JUNK = bytes.fromhex("0005160700020000") + b"Mac OS X        " + bytes(96)  # the start of an AppleDouble file


def draw_demo(
    root: str | Path, profiles: int, test_profiles: int, picture_size: str, seed: int, workers: int = 1
) -> None:
    """Draw the demo data below `root`; equal arguments give equal bytes, whatever `workers`.

    The files in `root` are train/train.csv, train/images/, eval/info.csv and eval/images/ as in the home task;
    eval_answers.csv (ImageID, ans) with the true classes of the test images; and corrections.csv (id, field, from, to,
    source, certainty) with the label errors that were planted in train.csv. A correction of the field `shots` means
    that the two named files are swapped.

    Args:
        root: the folder; an earlier demo in it is replaced when the new one is complete.
        profiles: rows of train.csv, seven pictures each; one in twenty is a second visit of an earlier person.
        test_profiles: persons among the test images, seven pictures each.
        picture_size: height x width in pixels, such as 256x192.
        seed: seed of all draws; person i is the same whatever the number of profiles.
        workers: largest number of processes.

    Raises:
        UserError: if `root` holds files that this module did not write, or cannot be written.
    """
    root = Path(root)
    if not (root / MARK).is_file() and any(path.is_symlink() or not path.is_dir() for path in root.rglob("*")):
        raise UserError(f"{root}: holds files that the demo has not made; move them away or choose another `results`")
    height, width = parse_size(picture_size)
    fresh = root.with_name(f".{root.name}.tmp")
    train, test = enrol(profiles, seed, "train"), enrol(test_profiles, seed, "test")
    try:
        shutil.rmtree(fresh, ignore_errors=True)
        tasks = [partial(_draw_train, fresh / "train/images", entry, height, width, seed) for entry in train]
        tasks += [partial(_draw_test, fresh / "eval/images", entry, height, width, seed) for entry in test]
        for _ in map_processes(_call, tasks, workers, "drawing faces", worth=PERSONS_A_PROCESS):
            pass
        _write_tables(fresh, train, test, seed)
        arguments = {"profiles": profiles, "test_profiles": test_profiles, "picture_size": picture_size, "seed": seed}
        write_json(fresh / MARK, arguments)
        _replace(root, fresh)
    except OSError as error:
        raise UserError(
            f"{root}: cannot be written: {error.strerror or error}; free space or choose another `results`"
        ) from error
    finally:
        shutil.rmtree(fresh, ignore_errors=True)


def shots_of(entry: Entry, height: int, width: int, seed: int, part: str) -> Iterator[tuple[int, np.ndarray]]:
    """The seven pictures of one entry, in the order mask1 to mask5, incorrect_mask, normal.

    Args:
        entry: the person and visit.
        height: height of a picture in pixels.
        width: width of a picture in pixels.
        seed: seed of the demo.
        part: train or test.

    Yields:
        The mask's code (0 wear, 1 incorrect, 2 not wear) and a uint8 RGB array of shape (height, width, 3).
    """
    person = invent_person(generator(seed, "demo", part, "face", entry.person), entry.gender, entry.age)
    visit = invent_visit(generator(seed, "demo", part, "visit", entry.row))
    for index in range(len(WORN)):
        code = max(0, index - 4)
        shot = invent_shot(
            generator(seed, "demo", part, "shot", entry.row, index), person, visit, MASKS[code], index % 5
        )
        yield code, paint(person, visit, shot, height, width)


def _call(task: Callable[[], None]) -> None:
    task()


def _draw_train(images: Path, entry: Entry, height: int, width: int, seed: int) -> None:
    folder = images / entry.path
    folder.mkdir(parents=True)
    pictures = [picture for _, picture in shots_of(entry, height, width, seed, "train")]
    if entry.swapped:
        pictures[5], pictures[6] = pictures[6], pictures[5]
    for stem, extension, picture in zip(WORN, extensions(entry.row, seed), pictures, strict=True):
        _save(folder / f"{stem}.{extension}", picture, junk=entry.row % 4 == 1)


def _draw_test(images: Path, entry: Entry, height: int, width: int, seed: int) -> None:
    images.mkdir(parents=True, exist_ok=True)
    for index, (_, picture) in enumerate(shots_of(entry, height, width, seed, "test")):
        _save(images / f"{picture_name(seed, entry.row, index)}.jpg", picture, junk=entry.row % 4 == 0 and index < 2)


def _save(path: Path, picture: np.ndarray, junk: bool) -> None:
    options = [cv2.IMWRITE_PNG_COMPRESSION, 4] if path.suffix == ".png" else [cv2.IMWRITE_JPEG_QUALITY, 92]
    _, encoded = cv2.imencode(path.suffix, np.ascontiguousarray(picture[:, :, ::-1]), options)
    path.write_bytes(encoded.tobytes())
    if junk:
        path.with_name(f"._{path.name}").write_bytes(JUNK)


def _write_tables(root: Path, train: list[Entry], test: list[Entry], seed: int) -> None:
    people = [(entry.id, entry.told_gender, RACE, entry.told_age, entry.path) for entry in train]
    _write_csv(root / "train/train.csv", ("id", "gender", "race", "age", "path"), sorted(people))
    shuffled = sorted(
        (
            derive(seed, "demo", "order", entry.row, index),
            f"{picture_name(seed, entry.row, index)}.jpg",
            max(0, index - 4) * 6 + entry.stratum,
        )
        for entry in test
        for index in range(len(WORN))
    )
    _write_csv(root / "eval/info.csv", ("ImageID", "ans"), ((name, 0) for _, name, _ in shuffled))
    _write_csv(root / "eval_answers.csv", ("ImageID", "ans"), ((name, answer) for _, name, answer in shuffled))
    _write_csv(root / "corrections.csv", ("id", "field", "from", "to", "source", "certainty"), corrections(train))


def _write_csv(path: Path, columns: tuple[str, ...], rows: Iterable[tuple[str | int, ...]]) -> None:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(rows)
    write_bytes(path, text.getvalue().encode())


def _replace(root: Path, fresh: Path) -> None:
    """Replace `root` by `fresh`; if this is interrupted, both still exist complete under other names."""
    aside = root.with_name(f".{root.name}.old")
    shutil.rmtree(aside, ignore_errors=True)
    if root.exists():
        root.rename(aside)
    fresh.rename(root)
    shutil.rmtree(aside, ignore_errors=True)
