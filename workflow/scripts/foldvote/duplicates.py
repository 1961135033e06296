"""Images that are the same, or nearly so, where they should be of different people."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from foldvote.console import say
from foldvote.files import write_json
from foldvote.tables import read_table

MOST_LISTED = 200
_PAIRS_AT_ONCE = 1 << 22


def merge_groups(manifest: pd.DataFrame) -> tuple[pd.Series, list[list[str]]]:
    """Join groups that hold an image with the same bytes: one person must not stand on both sides of a split.

    Args:
        manifest: rows with columns `group` and `sha256`.

    Returns:
        The group of each row after joining (named by the first of its names), and the sets of joined names.
    """
    parent = {name: name for name in manifest["group"].unique()}

    def root(name: str) -> str:
        while parent[name] != name:
            parent[name] = parent[parent[name]]
            name = parent[name]
        return name

    for _, names in manifest[manifest["sha256"].duplicated(keep=False)].groupby("sha256")["group"]:
        roots = sorted({root(name) for name in names})
        for other in roots[1:]:
            parent[other] = roots[0]
    merged = manifest["group"].map(root)
    together = manifest["group"].groupby(merged).unique()
    return merged, [sorted(names) for names in together if len(names) > 1]


def same_bytes(left: pd.DataFrame, right: pd.DataFrame | None = None) -> list[list[str]]:
    """Image ids that share their bytes: across the groups of one table, or across two tables.

    Args:
        left: manifest rows.
        right: manifest rows of another split; None compares the groups of `left` with one another.

    Returns:
        One sorted list of image ids for each content that stands where it should not.
    """
    rows = (
        left.assign(side=left["group"]) if right is None else pd.concat([left.assign(side="l"), right.assign(side="r")])
    )
    spread = rows.groupby("sha256")["side"].transform("nunique") > 1
    return [sorted(ids) for _, ids in rows[spread].groupby("sha256")["image_id"]]


def near_duplicates(
    left: pd.DataFrame, bits: int, right: pd.DataFrame | None = None
) -> tuple[int, list[dict[str, Any]]]:
    """Pairs of images whose perceptual hashes differ in at most `bits` of 64, across groups or across two tables.

    Equal bytes are left out: `same_bytes` has those.

    Args:
        left: manifest rows with columns image_id, group, phash (16 hex digits), sha256.
        bits: largest Hamming distance.
        right: manifest rows of another split; None compares the groups of `left` with one another.

    Returns:
        The number of such pairs, and the nearest of them, at most 200, as records {distance, a, b}.
    """
    other = left if right is None else right
    a_hash, b_hash = _hashes(left), _hashes(other)
    a_bytes, b_bytes = _codes(left["sha256"], other["sha256"])
    a_group, b_group = _codes(left["group"], other["group"]) if right is None else (None, None)
    count, found = 0, []
    block = max(_PAIRS_AT_ONCE // max(len(other), 1), 1)
    for start in range(0, len(left), block):
        some = slice(start, start + block)
        distance = np.bitwise_count(a_hash[some, None] ^ b_hash[None, :])
        near = distance <= bits
        near &= a_bytes[some, None] != b_bytes[None, :]
        if a_group is not None and b_group is not None:
            near &= a_group[some, None] != b_group[None, :]
            near &= np.arange(len(left))[some, None] < np.arange(len(other))[None, :]
        rows, columns = np.nonzero(near)
        count += len(rows)
        nearest = np.argsort(distance[rows, columns], kind="stable")[:MOST_LISTED]
        rows, columns = rows[nearest], columns[nearest]
        found += zip(distance[rows, columns].tolist(), (rows + start).tolist(), columns.tolist(), strict=True)
        found = sorted(found)[:MOST_LISTED]
    a_ids, b_ids = left["image_id"].tolist(), other["image_id"].tolist()
    return count, [{"distance": d, "a": a_ids[i], "b": b_ids[j]} for d, i, j in found]


def report_overlap(train_manifest: Path, test_manifest: Path, bits: int, path: Path) -> None:
    """Write `data/overlap.json`: images that stand in train and in test, to the byte or nearly.

    Nothing is dropped: whether such an image counts is not for the pipeline to decide.

    Args:
        train_manifest: manifest of the training images.
        test_manifest: manifest of the test images.
        bits: largest Hamming distance of two perceptual hashes that is listed.
        path: the JSON file.
    """
    train, test = read_table(train_manifest), read_table(test_manifest)
    same = same_bytes(train, test)
    count, nearest = near_duplicates(train, bits, test)
    write_json(path, {"same_bytes": same, "near_duplicates": {"bits": bits, "pairs": count, "nearest": nearest}})
    if same:
        say(f"warning: {len(same)} images stand in train and in test, such as {' = '.join(same[0])}; see {path}")


def _hashes(rows: pd.DataFrame) -> np.ndarray:
    return np.array([int(text, 16) for text in rows["phash"]], dtype=np.uint64)


def _codes(left: pd.Series, right: pd.Series) -> tuple[np.ndarray, np.ndarray]:
    codes, _ = pd.factorize(pd.concat([left, right]))
    return codes[: len(left)], codes[len(left) :]
