"""Schemas of the manifest and of the quarantine."""

from collections.abc import Iterable, Sequence

import pyarrow as pa

from foldvote.io.parquet import required

ONLY, WEIGHT = "train_only", "sample_weight"  # columns of rows that are only trained on, and of weights in the loss
USES = {ONLY: pa.bool_(), WEIGHT: pa.float64()}  # their types


def manifest_schema(factors: Iterable[str], raw: Sequence[tuple[str, pa.DataType]] = ()) -> pa.Schema:
    """Schema of `data/manifest/split=<split>/manifest.parquet`: one row per image.

    Args:
        factors: names of the factor columns (strings; null if the label is unknown).
        raw: names and types of the layout's additional columns, such as age_years.
    """
    return pa.schema(
        [
            required("image_id", pa.string()),
            required("path", pa.string()),
            ("profile", pa.string()),
            ("group", pa.string()),
            *((name, pa.string()) for name in factors),
            *raw,
            required("label", pa.int16()),
            ("class_name", pa.string()),
            required("width", pa.int32()),
            required("height", pa.int32()),
            required("format", pa.string()),
            required("bytes", pa.int64()),
            required("sha256", pa.string()),
            required("phash", pa.string()),
            required("corrected", pa.bool_()),
            required("flags", pa.string()),
        ]
    )


LEFT_OUT = "left_out"  # reason of an image that the user asked to leave out
QUARANTINE = pa.schema([("path", pa.string()), ("reason", pa.string()), ("message", pa.string())])
