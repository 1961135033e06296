"""Label corrections from a CSV file of the user, applied before the class codes are computed.

A correction names the present value (`from`) and the right one (`to`). If `from` does not match the data, the file is
for other data or was already applied, which is an error.
"""

from collections import Counter
from collections.abc import Collection
from typing import Any

import pandas as pd

from foldvote.config.data import DataSettings
from foldvote.data.layouts.base import Correction, CorrectionFault
from foldvote.data.layouts.registry import layout_of
from foldvote.errors import raise_all
from foldvote.io.csv_files import plain_cells, read_csv
from foldvote.io.files import sha256_file
from foldvote.io.names import look

COLUMNS = ("id", "field", "from", "to", "source", "certainty")


def apply_corrections(
    frame: pd.DataFrame, config: DataSettings, classes: Collection[str] = ()
) -> tuple[pd.DataFrame, dict[str, Any]]:
    """Apply the rows of `config.corrections` whose certainty is in `config.corrections_certainty`, in their order.

    The layout defines what `id` and `field` mean; config/README.md explains this for each layout.

    Args:
        frame: the training entries, without labels.
        config: the configuration of the data.
        classes: the names of classes that a correction may name, where the classes are those found in the data.

    Returns:
        The entries with a column `corrected`, and a summary: sha256 of the file, the rows that were applied, and the
        number of skipped rows by reason. The summary is empty if no file is configured.

    Raises:
        UserError: for every row that names an unknown id, field or class, does not match the data, or has a certainty
            that differs by a slip of the keyboard from one that is applied; with its number.
    """
    frame = frame.reset_index(drop=True).assign(corrected=False)
    path = config.corrections_path
    if path is None:
        return frame, {}
    written = read_csv(path, COLUMNS, empty=True)
    table = plain_cells(written)
    spelling_only = (table["from"] == table["to"]) & (written["from"] != written["to"])  # done when the data is read
    layout = layout_of(config.data)
    applied: list[dict[str, Any]] = []
    skipped: Counter[str] = Counter()
    faults: list[str] = []
    for number, row in enumerate(table[list(COLUMNS)].to_dict("records"), start=2):
        if meant := _mistyped(row["certainty"], config.corrections_certainty):
            faults.append(
                f"{path}, row {number}: id {row['id']!r}: the certainty {row['certainty']!r} is not one of "
                f"corrections_certainty; did you mean {meant!r}?"
            )
            continue
        if row["certainty"] not in config.corrections_certainty:
            skipped[f"certainty {row['certainty']}"] += 1
            continue
        if spelling_only[number - 2]:
            skipped["only the spelling"] += 1
            continue
        if row["field"] in layout.ignored_fields:
            skipped[f"field {row['field']}"] += 1
            continue
        try:
            changed = layout.correct(frame, Correction(row["id"], row["field"], row["from"], row["to"]), classes)
            frame.loc[changed, "corrected"] = True
            applied.append(row)
        except CorrectionFault as fault:
            faults.append(f"{path}, row {number}: id {row['id']!r}: {fault}")
    raise_all(faults)
    return frame, {"sha256": sha256_file(path), "applied": applied, "skipped": dict(skipped)}


def _mistyped(word: str, known: Collection[str]) -> str | None:
    """The known word that was meant by another one: of other case, with two letters exchanged or one wrong."""
    if word in known:
        return None
    return next((name for name in known if look(name) == look(word) or _one_slip(look(word), look(name))), None)


def _one_slip(one: str, other: str) -> bool:
    """Whether two words differ by one letter more, less or changed, or by two neighbours exchanged."""
    short, long = sorted((one, other), key=len)
    same = next((place for place, letters in enumerate(zip(short, long, strict=False)) if len(set(letters)) > 1), None)
    at = len(short) if same is None else same
    if len(long) - len(short) == 1:
        return short[at:] == long[at + 1 :]
    exchanged = short[at + 1 : at + 2] + short[at : at + 1] + short[at + 2 :]
    return len(long) == len(short) and long[at:] in (long[at : at + 1] + short[at + 1 :], exchanged)
