"""Predictions that are kept, so that only images that are new, or whose file has changed, are predicted.

A store is a folder of parquet files, one for each piece of images that was predicted at once. It is no output of a
rule: it outlives a killed job, and a job that runs again. An image is found again by its name and the SHA-256 of its
file.
"""

import shutil
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from foldvote.evaluation.vote_table import PROBABILITY
from foldvote.io.ids import positions_in
from foldvote.io.parquet import read_columns, required, write_table
from foldvote.runtime.job_log import log

Places = npt.NDArray[np.int64]
_KEPT_BYTES = 64 * 2**20  # of predictions in memory, of parts that were read


class PredictionStore:
    """The predictions of one ensemble.

    A place, by which a prediction is read, counts the rows of all parts.
    """

    def __init__(self, folder: Path, key: str, classes: Sequence[str]) -> None:
        """Open the store; what other ensembles have predicted is deleted, and so is a damaged part.

        Args:
            folder: the folder of the store.
            key: digest of all that predictions depend on apart from the image.
            classes: names of the classes in the order of their codes.
        """
        self._folder = folder / key[:16]
        self._classes = list(classes)
        self._read: OrderedDict[int, tuple[npt.NDArray[np.float64], npt.NDArray[np.int64]]] = OrderedDict()
        self._paths: list[Path] = []
        others = [path for path in folder.glob("*") if path.is_dir() and path != self._folder]
        for path in others:
            shutil.rmtree(path)
        if others:
            log("the ensemble has changed since images were predicted: all are predicted anew")
        ids, digests, lengths = [], [], []
        for path in sorted(self._folder.glob("*.parquet")):
            table = _keys(path)
            if table is None:
                path.unlink()
                continue
            self._paths.append(path)
            ids.append(table["image_id"].combine_chunks())
            digests.append(table["sha256"].combine_chunks())
            lengths.append(len(table))
        self._starts = [0, *np.cumsum(lengths).tolist()]
        self._ids = pa.concat_arrays(ids) if ids else pa.array([], pa.string())
        self._digests = pa.concat_arrays(digests) if digests else pa.array([], pa.string())

    def has_ids(self, ids: Sequence[str]) -> npt.NDArray[np.bool_]:
        """Which images have a prediction under their name, of whatever file: bool (images,)."""
        return pc.is_in(pa.array(ids, pa.string()), value_set=self._ids).to_numpy(zero_copy_only=False)

    def places(self, ids: Sequence[str], digests: Sequence[str]) -> Places:
        """The place of the prediction of each image and file, int64 (images,); -1 where there is none.

        Predictions that were added since the store was opened are not found.

        Args:
            ids: names of images.
            digests: SHA-256 of the file of each.
        """
        known = pc.binary_join_element_wise(self._digests, self._ids, " ")
        wanted = pc.binary_join_element_wise(pa.array(digests, pa.string()), pa.array(ids, pa.string()), " ")
        return positions_in(wanted, known)

    def add(
        self,
        ids: Sequence[str],
        digests: Sequence[str],
        probabilities: npt.NDArray[np.float64],
        codes: npt.NDArray[np.integer],
    ) -> Places:
        """Write a piece of predictions, whole or not at all. Returns their places.

        Args:
            ids: names of the images.
            digests: SHA-256 of the file of each.
            probabilities: shape (images, classes).
            codes: of the predicted classes, shape (images,).
        """
        number = int(self._paths[-1].stem) + 1 if self._paths else 0
        path = self._folder / f"{number:08d}.parquet"
        frame = pd.DataFrame(probabilities, columns=[PROBABILITY + name for name in self._classes])
        frame["prediction"], frame["image_id"], frame["sha256"] = codes, list(ids), list(digests)
        write_table(frame, path, _schema(self._classes))
        self._paths.append(path)
        self._starts.append(self._starts[-1] + len(ids))
        return np.arange(self._starts[-2], self._starts[-1])

    def read(self, places: Places) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.int64]]:
        """The predictions at some places: probabilities, float64 (images, classes), and codes, int64 (images,).

        Raises:
            UserError: if a part is damaged.
        """
        probabilities, codes = np.empty((len(places), len(self._classes))), np.empty(len(places), np.int64)
        parts = np.searchsorted(np.array(self._starts), places, side="right") - 1
        for part in np.unique(parts).tolist():
            own = parts == part
            whole, chosen = self._part(part)
            rows = places[own] - self._starts[part]
            probabilities[own], codes[own] = whole[rows], chosen[rows]
        return probabilities, codes

    def _part(self, part: int) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.int64]]:
        """The predictions of a part, of which the last few that were read are kept in memory."""
        if part in self._read:
            self._read.move_to_end(part)
            return self._read[part]
        table = read_columns(self._paths[part], _schema(self._classes))
        columns = [table[PROBABILITY + name].to_numpy() for name in self._classes]
        self._read[part] = np.column_stack(columns), table["prediction"].to_numpy().astype(np.int64)
        while len(self._read) > 1 and sum(values.nbytes for values, _ in self._read.values()) > _KEPT_BYTES:
            self._read.popitem(last=False)
        return self._read[part]


def _schema(classes: Sequence[str]) -> pa.Schema:
    return pa.schema(
        [
            required("image_id", pa.string()),
            required("sha256", pa.string()),
            required("prediction", pa.int16()),
            *(required(PROBABILITY + name, pa.float64()) for name in classes),
        ]
    )


def _keys(path: Path) -> pa.Table | None:
    """Names and digests of a part; None if it is damaged."""
    try:
        with pq.ParquetFile(path, page_checksum_verification=True) as file:
            return file.read(columns=["image_id", "sha256"])
    except (pa.ArrowException, OSError, ValueError):
        log(f"warning: {path}: damaged; its images are predicted anew")
        return None
