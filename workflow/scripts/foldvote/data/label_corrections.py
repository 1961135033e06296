"""Label corrections from a CSV file of the user, applied before the class codes are computed.

A correction names the present value (`from`) and the right one (`to`). If `from` does not match the data, the file is
for other data or was already applied, which is an error.
"""

from collections import Counter
from typing import Any

import pandas as pd

from foldvote.config.data import DataSettings
from foldvote.data.layouts.base import Correction, CorrectionFault
from foldvote.data.layouts.registry import layout_of
from foldvote.errors import raise_all
from foldvote.io.csv_files import read_csv
from foldvote.io.files import sha256_file

COLUMNS = ("id", "field", "from", "to", "source", "certainty")


def apply_corrections(frame: pd.DataFrame, config: DataSettings) -> tuple[pd.DataFrame, dict[str, Any]]:
    """Apply the rows of `config.corrections` whose certainty is in `config.corrections_certainty`, in their order.

    The layout defines what `id` and `field` mean; config/README.md explains this for each layout.

    Args:
        frame: the training entries, without labels.
        config: the configuration of the data.

    Returns:
        The entries with a column `corrected`, and a summary: sha256 of the file, the rows that were applied, and the
        number of skipped rows by reason. The summary is empty if no file is configured.

    Raises:
        UserError: for every row that names an unknown id or field or does not match the data, with its number.
    """
    frame = frame.reset_index(drop=True).assign(corrected=False)
    path = config.corrections_path
    if path is None:
        return frame, {}
    table = read_csv(path, COLUMNS, empty=True)
    layout = layout_of(config.data)
    applied: list[dict[str, Any]] = []
    skipped: Counter[str] = Counter()
    faults: list[str] = []
    for number, row in enumerate(table[list(COLUMNS)].to_dict("records"), start=2):
        row = {name: text.strip() for name, text in row.items()}
        if row["certainty"] not in config.corrections_certainty:
            skipped[f"certainty {row['certainty']}"] += 1
            continue
        if row["field"] in layout.ignored_fields:
            skipped[f"field {row['field']}"] += 1
            continue
        try:
            changed = layout.correct(frame, Correction(row["id"], row["field"], row["from"], row["to"]))
            frame.loc[changed, "corrected"] = True
            applied.append(row)
        except CorrectionFault as fault:
            faults.append(f"{path}, row {number}: id {row['id']!r}: {fault}")
    raise_all(faults)
    return frame, {"sha256": sha256_file(path), "applied": applied, "skipped": dict(skipped)}
