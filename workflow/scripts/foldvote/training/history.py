"""The table of a training's epochs: its schema. Apart, as the report reads it without torch."""

import pyarrow as pa

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
