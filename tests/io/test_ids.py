"""Positions of ids in other lists."""

import pyarrow as pa

from foldvote.io.ids import PositionsIn, positions_in


def test_positions_are_the_same_whether_or_not_the_list_was_looked_up_before():
    among = pa.array(["c", "a", "d", "b"])
    places = PositionsIn(among)
    for ids in (["a", "b"], ["a", "b"], ["b", "x"], ["c", "a", "d", "b"], ["a", "b"], []):
        wanted = pa.array(ids, pa.string())
        assert places.of(wanted).tolist() == positions_in(wanted, among).tolist()
    assert places.of(pa.array(["b", "x"])).tolist() == [3, -1]
