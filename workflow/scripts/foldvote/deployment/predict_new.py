"""The job that predicts new images with a finished ensemble: tables of predictions, and of bad images."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
from pyarrow.csv import CSVWriter, WriteOptions

from foldvote.config.data import Images
from foldvote.data.image_decoding import BadImage, file_digest
from foldvote.data.image_inspection import RejectedImage
from foldvote.data.manifest_table import QUARANTINE
from foldvote.deployment.ensemble import Ensemble
from foldvote.deployment.finished_run import FinishedRun, read_finished_run
from foldvote.deployment.new_images import NewImages, metadata_beside, shown
from foldvote.deployment.prediction_store import Places, PredictionStore
from foldvote.ensemble.vote_rows import set_texts
from foldvote.errors import UserError
from foldvote.evaluation.conformal import prediction_sets
from foldvote.evaluation.vote_table import PROBABILITY
from foldvote.io.csv_files import write_csv
from foldvote.io.files import canonical, sha256_bytes, whole_file
from foldvote.io.parquet import required, table_writer
from foldvote.runtime.job_log import log, track
from foldvote.runtime.locks import folder_lock
from foldvote.runtime.parallel_map import map_processes
from foldvote.runtime.resources import JobResources

_ROWS_AT_ONCE = 8_192  # of the tables
_DECIMALS = 6  # of the CSV file
_NOWHERE = -1


@dataclass(frozen=True)
class NewFiles:
    """What is written.

    Attributes:
        table: new/predictions.parquet, one row per image that could be read, in the order of the listing.
        csv: new/predictions.csv, the same.
        bad: new/bad.csv, one row per image that could not: path, reason, message.
        store: new/parts, the folder in which predictions are kept.
    """

    table: Path
    csv: Path
    bad: Path
    store: Path


def predict_new(results: Path, listed: NewImages, files: NewFiles, resources: JobResources, code: str) -> None:
    """Predict the images that have no prediction yet, and write the tables of all.

    Args:
        results: the folder of the finished run.
        listed: the images.
        files: what is written.
        resources: the resources of this job.
        code: digest of the code; after a change of it, no earlier prediction is used.

    Raises:
        UserError: if the run is not finished, has no sets of classes, or its networks cannot be used; or if it sees
            metadata that the images do not have. Bad images are listed and raise nothing.
    """
    run = read_finished_run(results)
    if run.least is None:
        raise UserError(f"{results}: ensemble/coverage.json is missing; run the workflow to its end")
    beside = metadata_beside(listed, run.metadata)
    with folder_lock(files.store, log):
        store = PredictionStore(files.store, _key(run, code), run.label_space.classes)
        places, bad = _known(run.images, listed, beside, store, resources.threads)
        wanted = np.flatnonzero(places == _NOWHERE)
        wanted = wanted[~np.isin(wanted, list(bad))]
        known = len(listed.ids) - len(wanted) - len(bad)
        if len(wanted):
            places[wanted] = _predict(run, listed, wanted, beside, store, resources, bad)
        doubtful = _write_tables(run, listed, places, store, files)
    _write_bad(listed, bad, files.bad)
    _tell(listed, files, known, int((places != _NOWHERE).sum()), len(bad), doubtful)


def _key(run: FinishedRun, code: str) -> str:
    """Digest of all that a prediction depends on apart from the image."""
    facts = {
        "code": code,
        "classes": list(run.label_space.classes),
        "recipes": {name: recipe.model_dump(mode="json") for name, recipe in run.recipes.items()},
        "weights": {f"{model}/{fold}": sha256 for (model, fold), sha256 in run.weights_sha256.items()},
        "views": list(run.views),
        "vote": [dict(run.params), dict(run.scaling)],
        "images": run.images.model_dump(mode="json"),
        "min_confidence": run.min_confidence,
    }
    return sha256_bytes(canonical(facts).encode())


def _known(
    rules: Images, listed: NewImages, beside: pd.DataFrame | None, store: PredictionStore, workers: int
) -> tuple[Places, dict[int, RejectedImage]]:
    """The place of each image's prediction, -1 where there is none; and the images whose files cannot be read."""
    places = np.full(len(listed.ids), _NOWHERE)
    again = np.flatnonzero(store.has_ids(listed.ids))
    found = map_processes(
        partial(_digest, listed.root, rules), [listed.paths[row] for row in again.tolist()], workers, "comparing files"
    )
    digests, bad = [], {}
    for row, one in zip(again.tolist(), found, strict=True):
        if isinstance(one, RejectedImage):
            bad[row] = one
        digests.append("" if isinstance(one, RejectedImage) else one)
    digests = _with_metadata(digests, beside, again)
    places[again] = store.places([listed.ids[row] for row in again.tolist()], digests)
    return places, bad


def _with_metadata(digests: list[str], beside: pd.DataFrame | None, rows: npt.NDArray[np.int64]) -> list[str]:
    """What predictions are kept under: the digest of the file, or that of it and of the image's metadata."""
    if beside is None:
        return digests
    own = beside.iloc[rows].astype(object)
    records = own.where(own.notna(), None).to_dict("records")
    return [sha256_bytes(canonical([digest, row]).encode()) for digest, row in zip(digests, records, strict=True)]


def _digest(root: Path, rules: Images, path: str) -> str | RejectedImage:
    try:
        return file_digest(root, path, rules)
    except BadImage as bad:
        return RejectedImage(bad.reason, bad.message)


def _predict(
    run: FinishedRun,
    listed: NewImages,
    wanted: npt.NDArray[np.int64],
    beside: pd.DataFrame | None,
    store: PredictionStore,
    resources: JobResources,
    bad: dict[int, RejectedImage],
) -> Places:
    """Predict some of the images and keep what was found. Returns their places; bad images are added to `bad`."""
    ensemble = Ensemble(run, resources)
    log(f"{len(wanted):,} images x {len(run.members)} networks x {len(run.views)} views, {ensemble.devices}")
    places = np.full(len(wanted), _NOWHERE)
    ids = [listed.ids[row] for row in wanted]
    images = [(listed.root, listed.paths[row]) for row in wanted]
    of_wanted = None if beside is None else beside.iloc[wanted]
    for piece in ensemble.pieces(images, ids, resources.threads, _tracked, of_wanted):
        bad |= {int(wanted[row]): found for row, found in piece.bad.items()}
        if len(piece.rows):
            names = [ids[row] for row in piece.rows]
            digests = _with_metadata(piece.digests, of_wanted, piece.rows)
            places[piece.rows] = store.add(names, digests, piece.probabilities, piece.codes)
    return places


def _tracked(images: Iterable[Any], total: int) -> Iterable[Any]:
    return track(images, "predicting images", total)


def _write_tables(run: FinishedRun, listed: NewImages, places: Places, store: PredictionStore, files: NewFiles) -> int:
    """Write the predictions in the order of the listing, a few thousand at once. Returns how many need a look."""
    schema = predictions_schema(run.label_space.classes)
    doubtful = 0
    rows = np.flatnonzero(places != _NOWHERE)
    with table_writer(files.table, schema) as writer, _csv_writer(files.csv, schema) as csv:
        for start in range(0, len(rows), _ROWS_AT_ONCE):
            own = rows[start : start + _ROWS_AT_ONCE]
            columns = _columns(run, listed, own, *store.read(places[own]))
            doubtful += int(np.sum(columns["review"]))
            writer.write_table(pa.table(columns, schema=writer.schema))
            csv.write_table(pa.table(_rounded(columns), schema=schema))
    return doubtful


def _columns(
    run: FinishedRun,
    listed: NewImages,
    rows: npt.NDArray[np.int64],
    probabilities: npt.NDArray[np.float64],
    codes: npt.NDArray[np.int64],
) -> dict[str, Any]:
    """The columns of `predictions_schema` for some images."""
    names = np.asarray(run.label_space.classes, dtype=object)
    assert run.least is not None
    sets = prediction_sets(probabilities, codes, run.least)
    sizes = sets.sum(axis=1)
    return {
        "image_id": [listed.ids[row] for row in rows],
        "path": [shown(str(listed.root / listed.paths[row])) for row in rows],
        "class": names[codes].tolist(),
        "confidence": probabilities[np.arange(len(codes)), codes],
        "set": set_texts(sets, probabilities, names),
        "size": sizes,
        "review": sizes > 1,
    } | {PROBABILITY + name: probabilities[:, code] for code, name in enumerate(names)}


def predictions_schema(classes: tuple[str, ...]) -> pa.Schema:
    """Schema of new/predictions.parquet: one row per image, one column of probabilities per class.

    Args:
        classes: class names in the order of their codes.
    """
    return pa.schema(
        [
            required("image_id", pa.string()),
            required("path", pa.string()),
            required("class", pa.string()),
            required("confidence", pa.float64()),
            required("set", pa.string()),
            required("size", pa.int32()),
            required("review", pa.bool_()),
            *(required(PROBABILITY + name, pa.float64()) for name in classes),
        ]
    )


def _rounded(columns: dict[str, Any]) -> dict[str, Any]:
    return {
        name: values.round(_DECIMALS) if getattr(values, "dtype", None) == np.float64 else values
        for name, values in columns.items()
    }


@contextmanager
def _csv_writer(path: Path, schema: pa.Schema) -> Iterator[CSVWriter]:
    """A writer of a CSV file of any length, which is there, whole, after the block."""
    with (
        whole_file(path) as temporary,
        CSVWriter(str(temporary), schema, write_options=WriteOptions(quoting_style="needed")) as writer,
    ):
        yield writer


def _write_bad(listed: NewImages, bad: dict[int, RejectedImage], path: Path) -> None:
    rows = [
        (shown(str(listed.root / listed.paths[row])), found.reason, found.message) for row, found in sorted(bad.items())
    ]
    write_csv(pd.DataFrame(rows, columns=QUARANTINE.names), path)


def _tell(listed: NewImages, files: NewFiles, known: int, predicted: int, bad: int, doubtful: int) -> None:
    """Log what was done."""
    total = len(listed.ids)
    if bad == total:
        log(f"warning: {listed.source}: all {total:,} images are bad, so none is predicted; {files.bad} says why")
        return
    log(
        f"{listed.source}: {total:,} images: {predicted - known:,} predicted now, {known:,} known from before, {bad:,} "
        f"bad{f' ({files.bad})' if bad else ''}; {files.csv}; {doubtful:,} need a look (column review)"
    )
