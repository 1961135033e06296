"""Whether a bundle predicts as its run does: its predictions in a fresh process, and the comparison with the run's."""

import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import numpy.typing as npt

from foldvote.data.image_folders import block_of
from foldvote.errors import UserError
from foldvote.io.parquet import read_columns, read_table

TOLERANCE = 1e-4  # largest difference of a probability
# Run by a Python that sees installed packages but neither this library nor its folder.
_PREDICT = """
import json, sys
import numpy as np
folder, wanted, found, threads = sys.argv[1:]
sys.path.insert(0, folder)
from predict import Bundle
from ingest.errors import UserError
try:
    probabilities, codes = Bundle(folder, threads=int(threads)).votes([tuple(pair) for pair in json.load(open(wanted))])
except UserError as error:
    sys.exit(str(error))
np.savez(found, probabilities=probabilities, codes=codes)
"""
Votes = tuple[npt.NDArray[np.float64], npt.NDArray[np.integer]]


@dataclass(frozen=True)
class Photographs:
    """Some images of a split.

    Attributes:
        ids: their ids.
        files: the data folder and the path below it of each.
    """

    ids: list[str]
    files: list[tuple[str, str]]


def photographs(manifest: Path, root: Path, most: int, among: Sequence[str] | None = None) -> Photographs:
    """Images of a manifest, spread evenly over it; none of external data.

    Args:
        manifest: the manifest of a split.
        root: the data folder.
        most: how many at most.
        among: ids of those that count; None: all.
    """
    table = read_table(manifest)
    table = table[block_of(table["path"]) == ""]
    if among is not None:
        table = table[table["image_id"].isin(set(among))]
    rows = table.iloc[np.unique(np.linspace(0, len(table) - 1, min(most, len(table))).round().astype(int))]
    return Photographs(rows["image_id"].tolist(), [(str(root), path) for path in rows["path"]])


def bundle_votes(folder: Path, images: Photographs, threads: int) -> Votes:
    """What a bundle predicts, in a process of its own that imports nothing but the bundle and its requirements.

    Args:
        folder: the bundle.
        images: what is predicted.
        threads: CPU threads.

    Raises:
        UserError: if it cannot predict them.
    """
    with TemporaryDirectory() as name:
        wanted, found = Path(name, "images.json"), Path(name, "votes.npz")
        wanted.write_text(json.dumps([(str(Path(root).resolve()), path) for root, path in images.files]))
        command = [
            sys.executable,
            "-I",
            "-B",
            "-c",
            _PREDICT,
            str(folder.resolve()),
            str(wanted),
            str(found),
            str(threads),
        ]
        done = subprocess.run(command, cwd=name, capture_output=True, text=True, check=False)
        if done.returncode:
            lines = done.stderr.strip().splitlines() or [f"it ended with {done.returncode}"]
            raise UserError(f"bundle: does not predict: {lines[-1]}")
        with np.load(found, allow_pickle=False) as file:
            return file["probabilities"], file["codes"]


def compared(
    images: Photographs, own: Votes, other: Votes, classes: Sequence[str], what: str, *, strict: bool = True
) -> dict[str, Any]:
    """Compare a bundle's predictions with those of its run.

    Args:
        images: the predicted images.
        own: of the bundle: probabilities (images, classes) and codes (images,).
        other: of the run.
        classes: names of the classes.
        what: where the run's predictions are from, for messages.
        strict: whether a difference is an error.

    Returns:
        `images`, `largest_difference` of a probability and `classes_that_differ`.

    Raises:
        UserError: if `strict` and a probability differs by more than TOLERANCE, or a class; the worst image is named.
    """
    gaps = np.abs(own[0] - other[0])
    of_image = np.where(np.isfinite(gaps), gaps, np.inf).max(axis=1)
    differ = own[1] != other[1]
    facts = {
        "images": len(images.ids),
        "largest_difference": float(of_image.max(initial=0.0)),
        "classes_that_differ": int(differ.sum()),
    }
    if strict and (differ.any() or facts["largest_difference"] > TOLERANCE):
        worst = int(np.argmax(of_image + differ))  # images of another class first
        code = int(np.argmax(gaps[worst]))
        raise UserError(
            f"bundle: predicts otherwise than {what}, so it was not written: {differ.sum()} of {len(differ)} images "
            f"have another class, and the largest difference of a probability is {of_image.max():.2g} (allowed: "
            f"{TOLERANCE:g}); the worst image is {images.ids[worst]}: {classes[own[1][worst]]} instead of "
            f"{classes[other[1][worst]]}, probability of {classes[code]} {own[0][worst, code]:.6f} instead of "
            f"{other[0][worst, code]:.6f}; try another version of onnxruntime, or leave models out"
        )
    return facts


def votes_of_table(path: Path, ids: Sequence[str], classes: Sequence[str]) -> Votes:
    """The predictions of some images in ensemble/test.parquet or another table with its columns.

    Args:
        path: the table.
        ids: the images.
        classes: names of the classes.
    """
    table = read_columns(path)
    row_of: Mapping[str, int] = {name: row for row, name in enumerate(table["image_id"].to_pylist())}
    rows = np.array([row_of[name] for name in ids], np.int64)
    probabilities = np.stack([table[f"p_{name}"].to_numpy() for name in classes], axis=1)[rows]
    return probabilities, table["prediction"].to_numpy()[rows].astype(np.int64)
