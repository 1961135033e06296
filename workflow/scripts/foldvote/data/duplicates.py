"""Equal and similar images that should be of different people."""

from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from foldvote.io.files import write_json
from foldvote.io.parquet import read_table
from foldvote.runtime.job_log import log

Hashes = npt.NDArray[np.uint64]
Positions = npt.NDArray[np.int64]
MOST_LISTED = 200


def merge_groups(manifest: pd.DataFrame) -> tuple[pd.Series, list[list[str]]]:
    """Merge groups that contain an equal image file, so that one person cannot be on both sides of a split.

    Args:
        manifest: rows with columns `group` and `sha256`.

    Returns:
        The group of each row after merging (the first of the merged names), and the lists of merged names.
    """
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components  # slow to import, and most stages do not need it

    # Groups and contents are the nodes of a graph, and each row is an edge between its group and its content.
    group, names = pd.factorize(manifest["group"], sort=True)
    content = len(names) + pd.factorize(manifest["sha256"])[0]
    nodes = len(names) + manifest["sha256"].nunique()
    graph = coo_array((np.ones(len(manifest)), (group, content)), shape=(nodes, nodes))
    component = connected_components(graph, directed=False)[1][: len(names)]
    joined = sorted(pd.Series(list(names)).groupby(component).agg(list))
    first = {name: members[0] for members in joined for name in members}
    return manifest["group"].map(first), [members for members in joined if len(members) > 1]


def joining_files(manifest: pd.DataFrame) -> list[tuple[list[str], list[str]]]:
    """The image files that are in several groups, and so join them.

    Args:
        manifest: rows with columns `image_id`, `group` and `sha256`.

    Returns:
        For each such file the image ids of its copies and the names of the groups, both sorted; that of most groups
        first.
    """
    spread = manifest.groupby("sha256")["group"].transform("nunique") > 1
    found = [(sorted(rows["image_id"]), sorted(set(rows["group"]))) for _, rows in manifest[spread].groupby("sha256")]
    return sorted(found, key=lambda pair: (-len(pair[1]), pair))


def same_bytes(left: pd.DataFrame, right: pd.DataFrame | None = None) -> list[list[str]]:
    """Image ids with equal files, across the groups of one table or across two tables.

    Args:
        left: manifest rows.
        right: manifest rows of another split; None compares the groups of `left` with one another.

    Returns:
        One sorted list of image ids for each such file content.
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

    Equal files are left out; `same_bytes` returns those.

    Args:
        left: manifest rows with columns image_id, group, phash (16 hex digits), sha256.
        bits: largest Hamming distance.
        right: manifest rows of another split; None compares the groups of `left` with one another.

    Returns:
        The number of such pairs, and the nearest 200 of them as records {distance, a, b}.
    """
    rows = left if right is None else pd.concat([left, right], ignore_index=True)
    hashes = np.array([int(text, 16) for text in rows["phash"]], dtype=np.uint64)
    content, _ = pd.factorize(rows["sha256"])
    side = pd.factorize(rows["group"])[0] if right is None else (np.arange(len(rows)) >= len(left)).astype(np.int64)
    count = 0
    found: list[Any] = []
    for a, b, distance in _near_pairs(hashes, bits):
        kept = (content[a] != content[b]) & (side[a] != side[b])
        count += int(kept.sum())
        pairs = np.stack([distance, np.minimum(a, b), np.maximum(a, b)], axis=1)[kept]
        found = sorted([*found, *map(tuple, pairs[np.lexsort(pairs.T[::-1])][:MOST_LISTED].tolist())])[:MOST_LISTED]
    ids = rows["image_id"].tolist()
    return count, [{"distance": d, "a": ids[i], "b": ids[j]} for d, i, j in found]


def _near_pairs(hashes: Hashes, bits: int) -> Iterator[tuple[Positions, Positions, Positions]]:
    """Yield all pairs that differ in at most `bits`, each once, in batches of two positions and the distance.

    If a hash is cut into `bits` + 1 pieces, such a pair has at least one piece in common, so only hashes with an equal
    piece are compared (Norouzi, Punjani and Fleet, "Fast search in Hamming space with multi-index hashing", CVPR 2012).
    """
    edges = np.linspace(0, 64, bits + 2).astype(int)
    masks = [np.uint64((1 << int(high)) - (1 << int(low))) for low, high in pairwise(edges)]
    for number, mask in enumerate(masks):
        piece = hashes & mask
        order = np.argsort(piece, kind="stable")
        piece, ordered = piece[order], hashes[order]
        first, step = np.arange(len(order)), 0
        while len(first):  # positions whose piece is equal to the one `step` positions later
            step += 1
            first = first[first + step < len(order)]
            first = first[piece[first] == piece[first + step]]
            differing = ordered[first] ^ ordered[first + step]
            distance = np.bitwise_count(differing)
            near = distance <= bits
            for earlier in masks[:number]:
                near &= (differing & earlier) != 0
            if near.any():
                yield order[first[near]], order[first[near] + step], distance[near].astype(np.int64)


def report_overlap(train_manifest: Path, test_manifest: Path, bits: int, path: Path) -> None:
    """Write `data/overlap.json`: images that are in train and in test, as equal or as similar files.

    No image is removed: that decision is left to the user.

    Args:
        train_manifest: manifest of the training images.
        test_manifest: manifest of the test images.
        bits: largest Hamming distance between the perceptual hashes of similar images.
        path: the JSON file to write.
    """
    train, test = read_table(train_manifest), read_table(test_manifest)
    same = same_bytes(train, test)
    count, nearest = near_duplicates(train, bits, test)
    write_json(path, {"same_bytes": same, "near_duplicates": {"bits": bits, "pairs": count, "nearest": nearest}})
    if same:
        log(f"warning: {len(same)} images stand in train and in test, such as {' = '.join(same[0])}; see {path}")
