"""Users' tables as text: read exactly, or refused with the line."""

import os

import pandas as pd
import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from foldvote.errors import UserError
from foldvote.io.csv_files import read_csv, read_user_table, write_csv
from support.data_folders import put

CELLS = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=12)


def fault(path, *args, **options) -> str:
    with pytest.raises(UserError) as caught:
        read_csv(path, *args, **options)
    return str(caught.value)


def test_f18_ids_stay_text(tmp_path):
    ids = ["000123", "1e5", "null", "NA", "nan", "", "0x1F", "True", "001498-1", "3.10"]
    path = put(tmp_path / "a.csv", "id,x\n" + "".join(f"{text},1\n" for text in ids))
    frame = read_csv(path, ["id"])
    assert frame["id"].tolist() == ids
    assert all(type(text) is str for text in frame["id"])


def test_f19_byte_order_mark_and_windows_line_ends_are_read_right(tmp_path):
    path = put(tmp_path / "a.csv", "\ufeffid,이름\r\n1,가\r\n2,나\r\n\r\n")
    frame = read_csv(path, ["id", "이름"])
    assert list(frame.columns) == ["id", "이름"]
    assert frame.to_numpy().tolist() == [["1", "가"], ["2", "나"]]


def test_f19_exact_messages(tmp_path):
    assert "'id' stands 2 times" in fault(put(tmp_path / "a.csv", "id,id,x\n1,2,3\n"))
    nul = fault(put(tmp_path / "b.csv", b"id\n1\n2\0\n"))
    assert "line 3" in nul and "NUL" in nul
    cp949 = fault(put(tmp_path / "c.csv", "id,name\n1,a\n2,홍길동\n".encode("cp949")))
    assert "line 3" in cp949 and "cp949" in cp949 and "UTF-8" in cp949
    assert "not UTF-8 (byte 0xff)" in fault(put(tmp_path / "d.csv", b"id\n\xff\xfa\xff\n\x80\n"))
    assert "UTF-16" in fault(put(tmp_path / "e.csv", "id\n1\n".encode("utf-16")))
    assert "not valid CSV" in fault(put(tmp_path / "f.csv", 'id\n"1\n'))
    ragged = fault(put(tmp_path / "g.csv", "a,b\n1,2\n1\n\n1,2,3\n1,2\n"))
    assert [line.split(": ")[0].split(", ")[1] for line in ragged.splitlines()] == ["line 3", "line 4", "line 5"]
    assert "separated by ';'" in fault(put(tmp_path / "h.csv", "a;b\n1;2\n"), ["a"])


def test_f20_missing_and_extra_columns_and_no_rows(tmp_path):
    path = put(tmp_path / "a.csv", "Path,gruop\n1,2\n")
    text = fault(path, ["path", "group", "zzz"])
    assert "did you mean 'Path'?" in text and "did you mean 'gruop'?" in text and "it has 'Path', 'gruop'" in text
    assert list(read_csv(path, ["Path"]).columns) == ["Path", "gruop"]
    assert "'gruop' is not known" in fault(path, ["Path"], extra=False)
    header = put(tmp_path / "b.csv", "id,x\n")
    assert "no rows" in fault(header)
    assert read_csv(header, empty=True).empty
    assert "empty" in fault(put(tmp_path / "c.csv", b""))
    assert "no such file" in fault(tmp_path / "none.csv")


def test_f16_a_pipe_is_no_table(tmp_path):
    os.mkfifo(tmp_path / "a.csv")
    assert "not a plain file" in fault(tmp_path / "a.csv")


def test_parquet_is_read_as_text(tmp_path):
    path = tmp_path / "a.parquet"
    pd.DataFrame({"id": ["001", None], "n": [1, 2], "x": [1.5, None]}).to_parquet(path)
    frame = read_user_table(path, ["id", "n"])
    assert frame.to_numpy().tolist() == [["001", "1", "1.5"], ["", "2", ""]]
    with pytest.raises(UserError, match="'m' is missing"):
        read_user_table(path, ["m"])


def test_f26_a_cut_parquet_is_refused_with_a_users_remedy(tmp_path):
    path = tmp_path / "a.parquet"
    pd.DataFrame({"id": ["001"]}).to_parquet(path)
    put(path, path.read_bytes()[:-9])
    with pytest.raises(UserError, match="make it anew"):
        read_user_table(path)


def test_other_kinds_of_table_are_refused(tmp_path):
    with pytest.raises(UserError, match=r"neither \.csv nor \.parquet"):
        read_user_table(put(tmp_path / "a.xlsx", b"PK"))


FORMULAS = ["=1+1", "+cmd", "-a", "@x", "\tx", "\rx", "-1.5", "+3e4", "1", "a=b", "'x"]


def test_f24_formulas_are_escaped_in_tables_for_people_and_numbers_are_not(tmp_path):
    frame = pd.DataFrame({"=head": FORMULAS, "n": [-1] * len(FORMULAS)})
    write_csv(frame, tmp_path / "a.csv", for_people=True)
    frame = read_csv(tmp_path / "a.csv", ["'=head"])
    expected = ["'=1+1", "'+cmd", "'-a", "'@x", "'\tx", "'\rx", "-1.5", "+3e4", "1", "a=b", "'x"]
    assert frame["'=head"].tolist() == expected
    assert set(frame["n"]) == {"-1"}


def test_what_looks_like_a_formula_comes_back_from_any_other_table(tmp_path):
    write_csv(pd.DataFrame({"=head": FORMULAS}), tmp_path / "a.csv")
    assert read_csv(tmp_path / "a.csv")["=head"].tolist() == FORMULAS


def test_written_files_are_utf8_with_plain_line_ends(tmp_path):
    write_csv(pd.DataFrame({"이름": ["가", None], "x": [0.5, float("nan")]}), tmp_path / "a.csv")
    assert (tmp_path / "a.csv").read_bytes() == '이름,x\n가,0.5\n"",""\n'.encode()


def test_what_no_csv_can_hold_is_refused_and_nothing_is_written(tmp_path):
    for text in ("a\0b", "a\udcff"):
        with pytest.raises(UserError, match="rename it"):
            write_csv(pd.DataFrame({"x": [text]}, dtype="object"), tmp_path / "a.csv")
    assert list(tmp_path.iterdir()) == []


@given(header=st.tuples(CELLS, CELLS), rows=st.lists(st.tuples(CELLS, CELLS), min_size=1, max_size=8))
@example(header=("\ufeffid", "=x"), rows=[("\ufeff", "'-a")])
def test_f18_any_text_comes_back_from_a_written_csv(tmp_path_factory, header, rows):
    path = tmp_path_factory.mktemp("csv") / "a.csv"
    assume(header[0] != header[1])
    write_csv(pd.DataFrame(rows, columns=list(header), dtype="str"), path)
    again = read_csv(path)
    assert tuple(again.columns) == header
    assert list(again.itertuples(index=False, name=None)) == rows


@given(texts=st.lists(CELLS, min_size=1, max_size=8))
def test_a_table_of_one_column_keeps_its_empty_cells(tmp_path_factory, texts):
    path = tmp_path_factory.mktemp("csv") / "a.csv"
    write_csv(pd.DataFrame({"id": texts}, dtype="str"), path)
    assert read_csv(path)["id"].tolist() == texts


def test_names_of_a_users_table_are_read_in_their_plain_spelling(tmp_path):
    path = put(tmp_path / "a.csv", "id ,Jose\u0301,n\n p\u00a0,Zoe\u0308,1\n")
    frame = read_user_table(path, ["id", "Jose\u0301"])
    assert frame.to_dict("list") == {"id": ["p"], "Jose\u0301": ["Zo\u00eb"], "n": ["1"]}
    assert read_user_table(path, ["Jos\u00e9"], exact=True).to_numpy().tolist() == [[" p\u00a0", "Zoe\u0308", "1"]]
    with pytest.raises(UserError, match="'id' stands 2 times"):
        read_user_table(put(tmp_path / "a.csv", "id,id \na,b\n"))


def test_numbers_and_bytes_of_a_parquet_table_are_their_own_text(tmp_path):
    path = tmp_path / "a.parquet"
    ids = [9_223_372_036_854_775_807, 1, None]
    frame = pd.DataFrame({"id": pd.array(ids, dtype="Int64"), "kind": [b"owl", "M\u00f6we".encode(), None]})
    frame.assign(box=[[1, 2]] * 3).to_parquet(path)
    read = read_user_table(path, ["id", "kind"])
    assert read.to_dict("list") == {"id": ["9223372036854775807", "1", ""], "kind": ["owl", "M\u00f6we", ""]}


def test_a_parquet_column_that_is_no_text_is_refused_with_its_type(tmp_path):
    path = tmp_path / "a.parquet"
    pd.DataFrame({"box": [[1, 2]], "kind": [b"\xff\xfe"]}).to_parquet(path)
    with pytest.raises(UserError) as caught:
        read_user_table(path, ["box", "kind"])
    assert "column 'box' is of the type list<" in caught.value.faults[0]
    assert "column 'kind' holds bytes that are not UTF-8" in caught.value.faults[1]
