"""The table of a training's epochs: its schema. Apart, as the report reads it without torch."""

from collections.abc import Iterable
from pathlib import Path

import pandas as pd
import pyarrow as pa

from foldvote.io.parquet import read_table

HISTORY = pa.schema(
    [
        pa.field("epoch", pa.int32(), nullable=False),
        pa.field("train_loss", pa.float64(), nullable=False),
        pa.field("val_loss", pa.float64(), nullable=False),
        pa.field("val_macro_f1", pa.float64(), nullable=False),
        pa.field("val_accuracy", pa.float64(), nullable=False),
        pa.field("val_balanced_accuracy", pa.float64(), nullable=False),
        pa.field("lr", pa.float64(), nullable=False),
        pa.field("seconds", pa.float64(), nullable=False),
        pa.field("best", pa.bool_(), nullable=False),
    ]
)


def history_schema(columns: Iterable[str]) -> pa.Schema:
    """HISTORY with one more column for each other validation score, empty where the score is not defined.

    A training without validation images has none of these columns.

    Args:
        columns: those of the table; names that begin with `val_` and are not in HISTORY are other scores.
    """
    scores = sorted(name for name in columns if name.startswith("val_"))
    if not scores:
        return pa.schema([field for field in HISTORY if not field.name.startswith("val_")])
    more = (pa.field(name, pa.float64()) for name in scores if name not in HISTORY.names)
    return pa.schema([*HISTORY, *more])


def read_history(path: str | Path) -> pd.DataFrame:
    """Read the table of a training's epochs.

    Args:
        path: history.parquet.

    Raises:
        UserError: if the file is missing, damaged, or has other columns than `history_schema`.
    """
    return read_table(path, history_schema(read_table(path)), key=("epoch",))
