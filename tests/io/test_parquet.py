"""Tables: what is written comes back, and what was cut, altered or blown up is refused."""

import ast
import pickle
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from foldvote.data.manifest_table import QUARANTINE, manifest_schema
from foldvote.errors import UserError
from foldvote.evaluation.vote_table import votes_schema
from foldvote.inference.prediction_files import LOGIT, predictions_schema
from foldvote.io.files import read_json
from foldvote.io.parquet import read_columns, read_record, read_table, write_table
from foldvote.splits.folds import FOLDS
from foldvote.training.history import HISTORY

ROOT = Path(__file__).resolve().parents[2]
KEY = ("image_id", "repeat")
RECORD = {"split_sha256": "0" * 64, "classes": ["a", "b"], "n": 3}


def folds_frame(rows: int = 40) -> pd.DataFrame:
    number = np.arange(rows)
    frame = pd.DataFrame(
        {
            "image_id": [f"p{i // 4:03d}/{i}.jpg" for i in number],
            "profile": [f"p{i // 4:03d}" for i in number],
            "group": [f"p{i // 4:03d}" for i in number],
            "stratum": ["young" if i % 8 < 4 else "old" for i in number],
            "label": number % 3,
            "repeat": 0,
            "fold": number // 4 % 5,
        }
    )
    return frame.astype({"label": "int16", "repeat": "int8", "fold": "int8"})


def predictions(rows: int = 30, seed: int = 0) -> pd.DataFrame:
    logits = np.random.default_rng(seed).normal(size=(rows, 3)).astype("float32")
    frame = pd.DataFrame({"image_id": [f"{i:040x}.jpg" for i in range(rows)], "profile": None, "label": None})
    frame["label"] = frame["label"].astype("Int16")
    frame["view"] = "identity"
    return pd.concat([frame, pd.DataFrame(logits, columns=[LOGIT + name for name in "abc"])], axis=1)


@pytest.fixture
def written(tmp_path: Path) -> Path:
    path = tmp_path / "folds.parquet"
    write_table(folds_frame(), path, FOLDS, key=KEY, record=RECORD)
    return path


def error_of(path: Path) -> str:
    with pytest.raises(UserError) as error:
        read_table(path, FOLDS, key=KEY)
    assert str(path) in error.value.faults[0]
    return str(error.value)


# --- F26: damage


@pytest.mark.parametrize("part", [0, 0.001, 0.01, 0.1, 0.25, 0.5, 0.75, 0.9, 0.99, 0.999])
def test_f26_a_cut_table_is_refused(written: Path, part: float) -> None:
    content = written.read_bytes()
    written.write_bytes(content[: int(len(content) * part)])
    assert "damaged or not parquet" in error_of(written)
    with pytest.raises(UserError, match="no provenance record"):
        read_record(written)


@pytest.mark.parametrize("lost", [1, 2, 4, 5, 8, 9])
def test_f26_a_table_without_its_last_bytes_is_refused(written: Path, lost: int) -> None:
    written.write_bytes(written.read_bytes()[:-lost])
    assert "damaged or not parquet" in error_of(written)


@pytest.mark.parametrize(
    ("frame", "schema", "step"),
    [(folds_frame(), FOLDS, 2), (predictions(), predictions_schema(tuple("abc")), 5)],
    ids=["folds", "predictions"],
)
def test_f26_after_a_flipped_bit_a_table_is_refused_or_the_same(
    tmp_path: Path, frame: pd.DataFrame, schema: pa.Schema, step: int
) -> None:
    path, altered = tmp_path / "whole.parquet", tmp_path / "altered.parquet"
    write_table(frame, path, schema, record=RECORD)
    content, whole = path.read_bytes(), read_table(path, schema)
    draws = np.random.default_rng(5)
    # The footer, of which parquet keeps no checksum, is where a bit could do harm.
    footer = range(len(content) - int.from_bytes(content[-8:-4], "little") - 8, len(content), step)
    positions = sorted({*footer, *draws.integers(len(content), size=200).tolist()})
    refused = 0
    for position in positions:
        damaged = bytearray(content)
        damaged[position] ^= 1 << int(draws.integers(8))
        altered.write_bytes(damaged)
        try:
            pd.testing.assert_frame_equal(read_table(altered, schema), whole)
        except UserError:
            refused += 1
        try:
            assert read_record(altered) == RECORD
        except UserError:
            refused += 1
    assert refused > len(positions) / 4


def test_f26_every_flipped_bit_of_the_row_counts_is_refused(written: Path, tmp_path: Path) -> None:
    """A smaller count in the footer made a reader silently drop rows."""
    content = written.read_bytes()
    whole = read_table(written, FOLDS)
    start = len(content) - int.from_bytes(content[-8:-4], "little") - 8
    count = bytes([0x16, 80])  # thrift: a 64-bit integer, 40 in zigzag form
    places = [index for index in range(start, len(content) - 1) if content[index : index + 2] == count]
    assert len(places) >= 2
    for place in places:
        for bit in range(8):
            damaged = bytearray(content)
            damaged[place + 1] ^= 1 << bit
            (tmp_path / "altered.parquet").write_bytes(damaged)
            try:
                pd.testing.assert_frame_equal(read_table(tmp_path / "altered.parquet", FOLDS), whole)
            except UserError as error:
                assert "altered.parquet" in str(error)


def bomb(path: Path, rows: int, length: int) -> Path:
    """A few hundred bytes that stand for `rows` texts of `length` letters."""
    texts = pa.DictionaryArray.from_arrays(pa.array(np.zeros(rows, dtype=np.int32)), pa.array(["x" * length]))
    pq.write_table(pa.table({"image_id": texts}), path, store_schema=False, compression="zstd")
    return path


@pytest.mark.parametrize(("rows", "length"), [(2_000, 50_000), (200_000, 1_000)])
def test_f26_a_small_file_that_expands_without_bound_is_refused(tmp_path: Path, rows: int, length: int) -> None:
    path = bomb(tmp_path / "bomb.parquet", rows, length)
    assert path.stat().st_size < 200_000
    with pytest.raises(UserError, match="expands beyond reason"):
        read_table(path)


def test_f26_an_absurd_number_of_rows_is_refused(tmp_path: Path) -> None:
    pq.write_table(pa.table({"a": pa.nulls(60_000_000)}), tmp_path / "rows.parquet")
    with pytest.raises(UserError, match=r"expands beyond reason for its size \(60,000,000 rows claimed\)"):
        read_table(tmp_path / "rows.parquet")


@pytest.mark.parametrize("name", ["missing.parquet", "folder"])
def test_a_missing_table_is_named(tmp_path: Path, name: str) -> None:
    (tmp_path / "folder").mkdir()
    for read in (read_table, read_record):
        with pytest.raises(UserError, match=name):
            read(tmp_path / name)


# --- F27: no pickle


class Malicious:
    """Makes a folder when it is unpickled."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self):
        return Path.mkdir, (self.target,)


def test_f27_a_pickle_under_another_name_is_not_executed(tmp_path: Path) -> None:
    content = pickle.dumps(Malicious(tmp_path / "executed"))
    for name, read in (("t.parquet", read_table), ("t.parquet", read_record), ("c.json", read_json)):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(UserError, match=name):
            read(tmp_path / name)
    table = pa.Table.from_pandas(folds_frame()).replace_schema_metadata({b"pandas": content, b"foldvote": content})
    pq.write_table(table, tmp_path / "t.parquet")
    assert len(read_table(tmp_path / "t.parquet")) == 40
    with pytest.raises(UserError, match="no provenance record"):
        read_record(tmp_path / "t.parquet")
    assert not (tmp_path / "executed").exists()


PICKLES = {"pickle", "cPickle", "_pickle", "joblib", "shelve", "dill", "cloudpickle", "marshal"}


def pickle_faults(path: Path) -> list[str]:
    """Where a source file could load a pickle: by import, by torch.load, pandas or numpy."""
    found = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [node.module or "", *(alias.name for alias in node.names)]
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            options = {word.arg: ast.unparse(word.value) for word in node.keywords}
            call = ast.unparse(node.func)
            if call == "torch.load" and options.get("weights_only") != "True":
                found.append(f"{path.name}:{node.lineno} {call} without weights_only=True")
            if node.func.attr in ("read_pickle", "to_pickle") or options.get("allow_pickle", "False") != "False":
                found.append(f"{path.name}:{node.lineno} {call}")
        found += [f"{path.name}:{node.lineno} {name}" for name in names if name.split(".")[0] in PICKLES]
    return found


def test_f27_no_module_can_load_a_pickle(tmp_path: Path) -> None:
    sources = sorted((ROOT / "workflow").rglob("*.py"))
    assert len(sources) > 40
    assert [fault for path in sources for fault in pickle_faults(path)] == []
    bad = tmp_path / "bad.py"
    bad.write_text(
        "import pickle\nfrom joblib import load\nimport torch\ntorch.load(p)\ntorch.load(p, weights_only=False)\n"
        "torch.load(p, weights_only=True)\npd.read_pickle(p)\nnp.load(p, allow_pickle=True)\n"
    )
    assert [int(fault.split(":")[1].split()[0]) for fault in pickle_faults(bad)] == [1, 2, 4, 5, 7, 8]


# --- what a table may hold


TEXTS = st.text(st.characters(blacklist_categories=["Cs"]), min_size=1, max_size=8)
ROWS = st.lists(
    st.tuples(TEXTS, TEXTS, TEXTS, TEXTS, st.integers(-1, 2**15 - 1), st.integers(0, 127), st.integers(-1, 126)),
    max_size=8,
    unique_by=lambda row: (row[0], row[5]),
)


@given(ROWS, st.dictionaries(TEXTS, st.none() | st.booleans() | st.integers(-(2**53), 2**53) | TEXTS, max_size=4))
@settings(max_examples=60, deadline=None)
def test_a_table_and_its_record_come_back_as_they_were(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple], record: dict
) -> None:
    path = tmp_path_factory.getbasetemp() / "round" / "t.parquet"
    frame = pd.DataFrame(rows, columns=FOLDS.names)
    write_table(frame[FOLDS.names[::-1]], path, FOLDS, key=KEY, record=record)
    read = read_table(path, FOLDS, key=KEY)
    assert list(read.itertuples(index=False, name=None)) == rows
    assert list(read.columns) == FOLDS.names
    assert [str(read[name].dtype) for name in ("label", "repeat", "fold")] == ["int16", "int8", "int8"]
    assert read_record(path) == record


@given(st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=3, max_size=3))
@settings(max_examples=40, deadline=None)
def test_logits_come_back_to_the_bit_and_an_unknown_label_as_none(
    tmp_path_factory: pytest.TempPathFactory, logits: list[float]
) -> None:
    path, schema = tmp_path_factory.getbasetemp() / "logits.parquet", predictions_schema(tuple("abc"))
    frame = predictions(2)
    frame.loc[1, [LOGIT + name for name in "abc"]] = logits
    write_table(frame, path, schema, key=("image_id", "view"))
    read = read_table(path, schema)
    assert read[LOGIT + "a"].to_numpy().tobytes() == frame[LOGIT + "a"].to_numpy().tobytes()
    assert read["label"].isna().all() and read["profile"].isna().all()


def test_equal_tables_are_equal_bytes(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_table(folds_frame(), tmp_path / name, FOLDS, record={"x": 1, "y": 2} if name == "a" else {"y": 2, "x": 1})
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_a_table_opens_in_pandas_as_it_is(written: Path) -> None:
    assert list(pd.read_parquet(written).columns) == FOLDS.names


def test_a_users_table_may_have_categories_lists_and_many_pieces(tmp_path: Path) -> None:
    frame = pd.DataFrame({"kind": pd.Categorical([f"k{i % 7}" for i in range(5000)]), "x": np.arange(5000.0)})
    frame.to_parquet(tmp_path / "own.parquet", row_group_size=700)
    read = read_table(tmp_path / "own.parquet")
    assert read["kind"].astype(str).tolist() == frame["kind"].astype(str).tolist()
    assert read["x"].tolist() == frame["x"].tolist()


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda f: f.drop(columns="fold"), "column 'fold' is missing"),
        (lambda f: f.assign(more=1, other=2), "column 'more' is not part of this table; remove it"),
        (lambda f: f.assign(label=f["label"] + 0.5), "does not fit its column"),
        (lambda f: f.assign(label=40_000), "does not fit its column"),
        (lambda f: f.assign(label="three"), "does not fit its column"),
        (lambda f: f.assign(image_id=range(len(f))), "does not fit its column"),
        (lambda f: f.assign(group=None), "column group has 40 empty values"),
        (lambda f: f.assign(fold=f["fold"].astype("Int8").mask(f["fold"] == 2)), "column fold has 8 empty values"),
        (lambda f: f.assign(image_id="p/1.jpg"), "1 rows stand twice or more, such as p/1.jpg 0; keep each once"),
    ],
)
def test_a_table_that_breaks_its_schema_is_refused_and_nothing_written(tmp_path: Path, change, told: str) -> None:
    path = tmp_path / "t.parquet"
    with pytest.raises(UserError) as error:
        write_table(change(folds_frame()), path, FOLDS, key=KEY)
    assert told in error.value.faults[0] and str(path) in error.value.faults[0]
    assert not list(tmp_path.iterdir())


def test_all_missing_and_surplus_columns_are_told_at_once(tmp_path: Path) -> None:
    with pytest.raises(UserError) as error:
        write_table(folds_frame().drop(columns=["fold", "label"]).assign(more=1), tmp_path / "t", FOLDS)
    assert len(error.value.faults) == 3


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_f57_a_logit_that_is_not_finite_is_refused_with_its_row(tmp_path: Path, value: float) -> None:
    frame = predictions()
    frame.loc[7, LOGIT + "b"] = value
    with pytest.raises(UserError, match=r"logit_b is not finite in rows \[7\]; the model that made it has diverged"):
        write_table(frame, tmp_path / "t.parquet", predictions_schema(tuple("abc")))


def test_a_foreign_table_is_checked_on_reading(tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    folds_frame().astype({"label": "int64"}).to_parquet(path)
    assert "column label is int64, not int16; make it anew" in error_of(path)
    folds_frame().drop(columns="group").assign(x=1).to_parquet(path)
    assert "column 'group' is missing" in error_of(path)
    pd.concat([folds_frame(), folds_frame(2)], ignore_index=True).to_parquet(path)
    assert "2 rows stand twice or more, such as p000/0.jpg 0, p000/1.jpg 0" in error_of(path)
    folds_frame().assign(group=None).astype({"group": "str"}).to_parquet(path)
    assert "empty values" in error_of(path)
    table = pq.read_table(path)
    pq.write_table(table.append_column("group", table["group"]), path)
    assert "column 'group' stands twice" in error_of(path)


def test_an_edited_table_has_no_record_and_an_altered_record_is_refused(written: Path) -> None:
    assert read_record(written) == RECORD
    table = pq.read_table(written)
    sealed = table.schema.metadata[b"foldvote"]
    pq.write_table(table.replace_schema_metadata({b"foldvote": sealed.replace(b'"n":3', b'"n":4')}), written)
    with pytest.raises(UserError, match="record was altered"):
        read_record(written)
    for content in (b"[1]", b"3", b"{", b'{"record": {}}'):
        pq.write_table(table.replace_schema_metadata({b"foldvote": content}), written)
        with pytest.raises(UserError, match="no provenance record"):
            read_record(written)
    pd.read_parquet(written).to_parquet(written)
    with pytest.raises(UserError, match="no provenance record"):
        read_record(written)


def test_public_schemas_have_the_columns_of_the_contract() -> None:
    assert predictions_schema(("x", "y")).names == ["image_id", "profile", "label", "view", "logit_x", "logit_y"]
    assert votes_schema(("x",), labelled=False).names == ["image_id", "prediction", "prediction_name", "p_x"]
    assert votes_schema(("x",), labelled=True).names[1:4] == ["profile", "label", "fold"]
    manifest = manifest_schema(["mask", "age"], [("age_years", pa.int16())])
    assert manifest.names[:7] == ["image_id", "path", "profile", "group", "mask", "age", "age_years"]
    assert QUARANTINE.names == ["path", "reason", "message"]
    assert HISTORY.field("epoch").type == pa.int32()


def test_a_table_read_in_many_pieces_joins_as_one_read_at_once(tmp_path, monkeypatch):
    rows = pd.DataFrame({"path": [f"person {n:04d}" for n in range(50)], "reason": "empty", "message": ""})
    write_table(rows, tmp_path / "t.parquet", QUARANTINE)
    monkeypatch.setattr("foldvote.io.parquet._CHUNK_BYTES", 1)
    assert read_columns(tmp_path / "t.parquet").column("path").num_chunks > 1
    frame = read_table(tmp_path / "t.parquet", QUARANTINE)
    assert isinstance(pa.array(frame["path"], pa.string()), pa.Array)
    assert frame.equals(rows.astype("str"))
