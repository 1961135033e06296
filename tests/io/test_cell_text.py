"""Cells of parquet columns as text, by type."""

import datetime as dt
import uuid
from decimal import Decimal

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from foldvote.io.cell_text import cell_texts

DAY = dt.datetime(2024, 1, 31)


def column(values, kind=None) -> pa.ChunkedArray:
    return pa.chunked_array([pa.array(values, kind)])


@pytest.mark.parametrize(
    ("values", "kind", "texts"),
    [
        ([1, None, -5], pa.int64(), ["1", "", "-5"]),
        ([2**64 - 1], pa.uint64(), ["18446744073709551615"]),
        ([9_007_199_254_740_993, None], pa.int64(), ["9007199254740993", ""]),
        (["001", None], pa.large_string(), ["001", ""]),
        (["a"], pa.string_view(), ["a"]),
        ([b"\xc3\xa9", None], pa.binary(), ["\u00e9", ""]),
        ([b"abc"], pa.binary(3), ["abc"]),
        ([b"a"], pa.large_binary(), ["a"]),
        ([1.0, 0.1, None, 1e20], pa.float64(), ["1.0", "0.1", "", "1e+20"]),
        ([0.1, None], pa.float32(), ["0.1", ""]),
        ([True, None], pa.bool_(), ["True", ""]),
        ([DAY.date(), None], pa.date32(), ["2024-01-31", ""]),
        ([DAY, None], pa.timestamp("ns"), ["2024-01-31 00:00:00", ""]),
        ([DAY], pa.timestamp("s", "UTC"), ["2024-01-31 00:00:00+00:00"]),
        ([dt.time(1, 2)], pa.time32("s"), ["01:02:00"]),
        ([Decimal("1.50"), None], pa.decimal128(10, 2), ["1.50", ""]),
        ([None], pa.null(), [""]),
    ],
)
def test_a_cell_is_the_text_of_its_value(values, kind, texts):
    assert cell_texts(column(values, kind)) == texts


def test_a_dictionary_gives_its_values_and_a_uuid_its_usual_text():
    assert cell_texts(column([7, None, 7], pa.int64()).dictionary_encode()) == ["7", "", "7"]
    assert cell_texts(column([b"x"]).dictionary_encode()) == ["x"]
    one = uuid.UUID(int=1)
    stored = pa.ExtensionArray.from_storage(pa.uuid(), pa.array([one.bytes, None], pa.binary(16)))
    assert cell_texts(pa.chunked_array([stored])) == [str(one), ""]


@pytest.mark.parametrize(
    ("values", "named"), [([[1]], "list<"), ([{"a": 1}], "struct<"), ([dt.timedelta(1)], "duration")]
)
def test_a_type_that_is_no_text_is_named(values, named):
    with pytest.raises(TypeError, match=named):
        cell_texts(column(values))


def test_bytes_that_are_no_text_are_refused():
    with pytest.raises(ValueError, match="not UTF-8"):
        cell_texts(column([b"\xff"]))


@given(values=st.lists(st.one_of(st.none(), st.integers(-(2**63), 2**63 - 1)), max_size=8))
def test_every_whole_number_keeps_its_digits(values):
    assert cell_texts(column(values, pa.int64())) == ["" if value is None else f"{value:d}" for value in values]
