"""Files of features: one row per packed image, one list of numbers per view. Written and read in pieces."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from foldvote.config.recipe import Recipe
from foldvote.errors import UserError, raise_all
from foldvote.io.ids import positions_in
from foldvote.io.parquet import read_record, table_writer

FEATURES = "features_"
Write = Callable[[Sequence[str], Mapping[str, np.ndarray]], None]
_ROWS = 1024  # of a row group, and so of a piece


def features_origin(recipe: Recipe, pretrained_sha256: str | None, data_sha256: str) -> dict[str, Any]:
    """What features are made from, as the record of their file says it.

    Args:
        recipe: for net, size and roi.
        pretrained_sha256: of the weights of the net.
        data_sha256: of the images.
    """
    of_net = {name: getattr(recipe, name) for name in ("net", "size", "roi")}
    return of_net | {"pretrained_sha256": pretrained_sha256, "data_sha256": data_sha256}


def features_schema(views: Sequence[str], width: int) -> pa.Schema:
    """Schema of a file of features.

    Args:
        views: names of the views.
        width: number of features of an image.
    """
    lists = [pa.field(FEATURES + view, pa.list_(pa.float32(), width), nullable=False) for view in views]
    return pa.schema([pa.field("image_id", pa.string(), nullable=False), *lists])


@contextmanager
def feature_writer(path: Path, views: Sequence[str], width: int, record: Mapping[str, Any]) -> Iterator[Write]:
    """Write a file of features piece by piece; it appears when the `with` block ends without an error.

    Args:
        path: the parquet file.
        views: names of the views.
        width: number of features of an image.
        record: its provenance, see `io.parquet.read_record`.

    Returns:
        A function that appends images, given their ids and by view their features, float32 (images, features).
    """
    with table_writer(path, features_schema(views, width), dict(record)) as file:

        def write(ids: Sequence[str], features: Mapping[str, np.ndarray]) -> None:
            flat = [pa.array(features[view].reshape(-1), pa.float32()) for view in views]
            lists = [pa.FixedSizeListArray.from_arrays(one, width) for one in flat]
            file.write_table(pa.Table.from_arrays([pa.array(ids), *lists], schema=file.schema), row_group_size=_ROWS)

        yield write


def feature_ids(path: Path) -> pa.Array:
    """The ids of the images of a file, in its order.

    Raises:
        UserError: if the file is missing or damaged.
    """
    pieces = [batch.column(0) for batch in _batches(path, "image_id")]
    return pa.concat_arrays(pieces) if pieces else pa.array([], pa.string())


def feature_pieces(path: Path, view: str) -> Iterator[np.ndarray]:
    """The features of all images of a file in its order, in pieces: float32 (images, features).

    Args:
        path: the file.
        view: name of a view.

    Raises:
        UserError: if the file is missing or damaged, or lacks the view.
    """
    for batch in _batches(path, FEATURES + view):
        yield batch.column(0).flatten().to_numpy().reshape(len(batch), -1)


def _batches(path: Path, column: str) -> Iterator[pa.RecordBatch]:
    """One column of a file, in pieces, each compared with its checksum."""
    try:
        with pq.ParquetFile(path, page_checksum_verification=True) as file:
            yield from file.iter_batches(_ROWS, columns=[column])
    except FileNotFoundError as error:
        raise UserError(f"{path}: missing; run your command again to make it") from error
    except (pa.ArrowException, OSError, KeyError, ValueError) as error:
        raise UserError(f"{path}: damaged ({error}); delete it and run your command again") from error


def read_features(path: Path, ids: Sequence[str], view: str) -> np.ndarray:
    """The features of some images, in their order: float32 (images, features).

    Args:
        path: the file.
        ids: ids of the images.
        view: name of a view.

    Raises:
        UserError: if the file is missing or damaged, or lacks the view or an image.
    """
    found, features = np.zeros(len(ids), bool), np.empty((0, 0), np.float32)
    place_of, start = positions_in(feature_ids(path), pa.array(ids, pa.string())), 0
    for values in feature_pieces(path, view):
        if not features.size:
            features = np.empty((len(ids), values.shape[1]), np.float32)
        place = place_of[start : start + len(values)]
        start, known = start + len(values), place >= 0
        features[place[known]] = values[known]
        found[place[known]] = True
    if not found.all():
        raise UserError(
            f"{path}: lacks {int((~found).sum())} images, such as {ids[int(found.argmin())]}; delete it and run again"
        )
    return features


def check_features(path: Path, expected: Mapping[str, Any], views: Sequence[str] = ()) -> dict[str, Any]:
    """Check that a file holds the features that a job expects.

    Args:
        path: the file.
        expected: values of its record, see `features_origin`.
        views: names of views that it must hold.

    Returns:
        The record.

    Raises:
        UserError: if it was made from anything else, or lacks a view.
    """
    record = read_record(path)
    differing = [name for name, value in expected.items() if record.get(name) != value]
    absent = [view for view in views if view not in record["views"]]
    again = f"delete it and run your command again, or run it with `-R {path}`"
    raise_all(
        [f"{path}: was made with another {', '.join(differing)} than this job expects; {again}"] * bool(differing)
        + [f"{path}: lacks the views {', '.join(absent)}; {again}"] * bool(absent)
    )
    return record
