"""Pictures that stand twice, or nearly so, where they should be of different people, gathered from what stages know."""

from collections.abc import Mapping
from typing import Any

import pandas as pd

COLUMNS = ("kind", "distance", "a", "a_split", "b", "b_split")
CONFLICT = "the same file, two classes"
JOINED = "the same file in two groups, which were joined"
LEAKED = "the same file in train and test"
NEAR = "alike, in two groups"
NEAR_TEST = "alike, in train and test"


def lookalikes(
    manifest: pd.DataFrame, certificate: Mapping[str, Any], overlap: Mapping[str, Any] | None
) -> pd.DataFrame:
    """Pairs of images, the gravest kinds first, near-duplicates by their distance.

    Args:
        manifest: training rows, with groups as the data has them.
        certificate: `folds/certificate.json`; at most 200 near-duplicates are in it.
        overlap: `data/overlap.json`, or None without test images; at most 200 near-duplicates, too.

    Returns:
        Columns kind, distance (bits of 64; 0 for the same file), a, a_split, b, b_split (image ids). A file that
        stands n times gives n - 1 pairs, each with the first.
    """
    rows = [*_same_files(manifest)]
    if overlap is not None:
        training = set(manifest["image_id"])
        for ids in overlap["same_bytes"]:
            first = next((name for name in ids if name in training), ids[0])
            rows += [(LEAKED, 0, first, "train", name, "test") for name in ids if name not in training]
    near = certificate["near_duplicates"]["nearest"]
    rows += [(NEAR, pair["distance"], pair["a"], "train", pair["b"], "train") for pair in near]
    if overlap is not None:
        near = overlap["near_duplicates"]["nearest"]
        rows += [(NEAR_TEST, pair["distance"], pair["a"], "train", pair["b"], "test") for pair in near]
    order = {kind: place for place, kind in enumerate((CONFLICT, LEAKED, JOINED, NEAR, NEAR_TEST))}
    return pd.DataFrame(sorted(rows, key=lambda row: (order[row[0]], row[1])), columns=list(COLUMNS))


def _same_files(manifest: pd.DataFrame) -> list[tuple[str, int, str, str, str, str]]:
    pairs = []
    for _, rows in manifest[manifest["sha256"].duplicated(keep=False)].groupby("sha256", sort=False):
        first, *others = rows.to_dict("records")
        for other in others:
            if other["label"] != first["label"]:
                pairs.append((CONFLICT, 0, first["image_id"], "train", other["image_id"], "train"))
            elif other["group"] != first["group"]:
                pairs.append((JOINED, 0, first["image_id"], "train", other["image_id"], "train"))
    return pairs
