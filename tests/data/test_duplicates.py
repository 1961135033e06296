"""Images that stand where they should not: joined, refused or listed by name, never dropped."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from foldvote.config.folds import Folds
from foldvote.data import duplicates
from foldvote.data.duplicates import merge_groups, near_duplicates, report_overlap, same_bytes
from foldvote.errors import UserError
from foldvote.io.files import read_json
from foldvote.io.parquet import read_table
from foldvote.splits.folds import FOLDS, make_folds
from support.tiny_member import manifest_row, write_manifest


def table(*rows: tuple[str, str, str], phash: Sequence[int] = ()) -> pd.DataFrame:
    """A manifest of (image id, group, content)."""
    hashes = phash or [0x1234_5678_9ABC_DEF0 + 0xFFFF_FFFF * number for number in range(len(rows))]
    return pd.DataFrame(
        [
            manifest_row(image_id, group, 0, content, phash=f"{value % 2**64:016x}")
            for (image_id, group, content), value in zip(rows, hashes, strict=True)
        ]
    )


def people(count: int, shots: int = 3) -> list[tuple[str, str, str]]:
    """Images of different content, so many a person."""
    return [(f"p{p}/{s}", f"p{p}", f"{p}-{s}") for p in range(count) for s in range(shots)]


def split(folder: Path, manifest: pd.DataFrame, **values: object) -> tuple[pd.DataFrame, dict]:
    write_manifest(manifest, folder / "m.parquet")
    paths = [folder / name for name in ("folds.parquet", "certificate.json", "classes.json")]
    make_folds(folder / "m.parquet", Folds(k=3, **values), 1, *paths)
    return read_table(paths[0], FOLDS), read_json(paths[1])


# --- groups that share a photograph


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 12)), min_size=1, max_size=30))
@settings(deadline=None)
def test_groups_are_joined_exactly_where_a_chain_of_equal_photographs_links_them(pairs: list[tuple[int, int]]) -> None:
    manifest = pd.DataFrame({"group": [f"g{g}" for g, _ in pairs], "sha256": [f"c{c}" for _, c in pairs]})
    linked = {g: {g} for g, _ in pairs}
    for _ in pairs:  # the reference: reach is widened until nothing changes
        for g, c in pairs:
            for h, d in pairs:
                if c == d:
                    linked[g] |= linked[h] | {h}
    merged, together = merge_groups(manifest)
    assert merged.tolist() == [f"g{min(linked[g])}" for g, _ in pairs]
    wanted = {tuple(f"g{h}" for h in sorted(reach)) for reach in linked.values() if len(reach) > 1}
    assert sorted(map(tuple, together)) == sorted(wanted)


def test_f33_f35_the_same_photograph_under_two_profiles_makes_one_group(tmp_path: Path) -> None:
    rows = [*people(9), ("p0/again", "p0", "5-1"), ("p7/again", "p7", "0-0")]
    folds, proof = split(tmp_path, table(*rows))
    one = folds[folds["profile"].isin(["p0", "p5", "p7"])]
    assert set(one["group"]) == {"p0"} and one["fold"].nunique() == 1
    assert set(one["profile"]) == {"p0", "p5", "p7"}, "the profiles keep their names"
    assert len(folds) == len(rows), "nothing is dropped"
    assert proof["merged_groups"] == [["p0", "p5", "p7"]]
    assert proof["groups"] == 7 and proof["profiles"] == 9
    assert proof["same_bytes_across_groups"] == []
    assert all(fold["shared"]["bytes"] == 0 for fold in proof["folds"])


def test_f33_the_same_photograph_under_two_profiles_is_refused_where_configured(tmp_path: Path) -> None:
    rows = [*people(9), ("p0/again", "p0", "5-1"), ("p7/again", "p7", "2-0")]
    with pytest.raises(UserError) as refused:
        split(tmp_path, table(*rows), duplicates="error")
    assert refused.value.faults == tuple(
        f"folds: {ids} are one file, so that the groups {names} count as one; if it shows none of them, leave all "
        f"copies out: leave_out: ['{ids.split(',')[0]}'], or set folds.duplicates: merge"
        for ids, names in (("p0/again, p5/1", "p0, p5"), ("p2/0, p7/again", "p2, p7"))
    )
    assert not (tmp_path / "folds.parquet").exists()


def test_the_same_photograph_twice_in_one_profile_is_no_matter(tmp_path: Path) -> None:
    rows = [*people(9), ("p0/again", "p0", "0-1")]
    folds, proof = split(tmp_path, table(*rows), duplicates="error")
    assert len(folds) == 28 and proof["merged_groups"] == []


def test_f33_equal_bytes_are_reported_by_name() -> None:
    train = table(("a/1", "a", "x"), ("a/2", "a", "x"), ("b/1", "b", "y"), ("c/1", "c", "x"))
    assert same_bytes(train) == [["a/1", "a/2", "c/1"]]
    test = table(("t1", "t", "y"), ("t2", "t", "z"), ("t3", "t", "z"))
    assert same_bytes(train, test) == [["b/1", "t1"]]
    assert same_bytes(test) == [] == same_bytes(test.iloc[:0])


# --- look-alikes


def reference(left: pd.DataFrame, right: pd.DataFrame | None, bits: int) -> list[dict]:
    """Every pair compared one by one."""
    pairs = []
    other = left if right is None else right
    for i, a in enumerate(left.to_dict("records")):
        for j, b in enumerate(other.to_dict("records")):
            if right is None and (j <= i or a["group"] == b["group"]):
                continue
            distance = (int(a["phash"], 16) ^ int(b["phash"], 16)).bit_count()
            if distance <= bits and a["sha256"] != b["sha256"]:
                pairs.append((distance, i, j))
    ids, other_ids = left["image_id"].tolist(), other["image_id"].tolist()
    return [{"distance": d, "a": ids[i], "b": other_ids[j]} for d, i, j in sorted(pairs)]


BITS = st.sets(st.integers(0, 63), max_size=4)
NEAR_HASHES = st.builds(
    lambda base, flips: base ^ sum(1 << bit for bit in flips), st.sampled_from([0, 2**64 - 1, 0xF0F0]), BITS
)
IMAGES = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 5), NEAR_HASHES), max_size=14)


def drawn_table(images: list[tuple[int, int, int]], side: str) -> pd.DataFrame:
    rows = [(f"{side}{number}", f"g{group}", f"c{content}") for number, (group, content, _) in enumerate(images)]
    columns = manifest_row("x", "x", 0, "x")
    return table(*rows, phash=[value for *_, value in images]) if rows else pd.DataFrame(columns=list(columns))


@given(IMAGES, IMAGES, st.booleans(), st.integers(0, 16))
@settings(max_examples=60, deadline=None)
def test_look_alikes_are_those_of_a_search_one_by_one(left: list, right: list, within: bool, bits: int) -> None:
    a, b = drawn_table(left, "a"), None if within else drawn_table(right, "b")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(duplicates, "MOST_LISTED", 10)
        count, nearest = near_duplicates(a, bits, b)
    wanted = reference(a, b, bits)
    assert count == len(wanted) and nearest == wanted[:10]


def test_thousands_of_equal_hashes_are_counted_and_the_nearest_listed() -> None:
    number = 3000
    manifest = table(*[(f"{i}", f"g{i}", f"c{i}") for i in range(number)], phash=[1] * number)
    count, nearest = near_duplicates(manifest, 4)
    assert count == number * (number - 1) // 2
    assert len(nearest) == 200 and nearest[0] == {"distance": 0, "a": "0", "b": "1"}


def test_f33_look_alikes_across_groups_are_listed_and_not_dropped(tmp_path: Path) -> None:
    rows = people(9)
    hashes = [int(value) for value in np.random.default_rng(0).integers(2**62, size=len(rows))]
    hashes[4] = hashes[22] ^ 0b101
    hashes[7] = hashes[6]
    folds, proof = split(tmp_path, table(*rows, phash=hashes))
    assert proof["near_duplicates"] == {"bits": 4, "pairs": 1, "nearest": [{"distance": 2, "a": "p1/1", "b": "p7/1"}]}
    assert len(folds) == 27 and proof["merged_groups"] == []
    _, proof = split(tmp_path, table(*rows, phash=hashes), near_duplicate_bits=1)
    assert proof["near_duplicates"]["pairs"] == 0


def test_f33_what_stands_in_train_and_in_test_is_reported_by_name(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train, test = tmp_path / "train.parquet", tmp_path / "test.parquet"
    write_manifest(table(("a/1", "a", "x"), ("b/1", "b", "y"), ("b/2", "b", "w"), phash=[1, 2**40, 2**63]), train)
    write_manifest(table(("t1", "t", "y"), ("t2", "t", "z"), phash=[2**40, 3]), test)
    report_overlap(train, test, 4, tmp_path / "overlap.json")
    assert read_json(tmp_path / "overlap.json") == {
        "same_bytes": [["b/1", "t1"]],
        "near_duplicates": {
            "bits": 4,
            "pairs": 5,
            "nearest": [
                {"distance": 1, "a": "a/1", "b": "t2"},
                {"distance": 2, "a": "a/1", "b": "t1"},
                {"distance": 2, "a": "b/2", "b": "t1"},
                {"distance": 3, "a": "b/1", "b": "t2"},
                {"distance": 3, "a": "b/2", "b": "t2"},
            ],
        },
    }
    told = capsys.readouterr().err
    assert "warning: 1 images stand in train and in test, such as b/1 = t1; see" in told
    report_overlap(train, test, 0, tmp_path / "overlap.json")
    assert read_json(tmp_path / "overlap.json")["near_duplicates"]["pairs"] == 0
