"""The submission: rows and order of the sample, joined by id, and everything else refused."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from foldvote.data.label_space import LabelSpace, factor_label_space, write_label_space
from foldvote.errors import UserError
from foldvote.evaluation.vote_table import votes_schema
from foldvote.io.csv_files import read_csv
from foldvote.io.parquet import write_table
from foldvote.runtime.seeding import generator
from foldvote.submission import writer
from foldvote.submission.writer import answer_columns, check_submission, write_submission

HOME = factor_label_space(
    {
        "mask": ("wear", "incorrect", "not-wear"),
        "gender": ("male", "female"),
        "age": ("under30", "30to59", "60plus"),
    }
)
IDS = ["000020.jpg", "1e5", "null", "NA", "한글 사진.png", "007", "a,b"]
CODES = [13, 0, 17, 8, 1, 14, 5]


class Case:
    """Votes, classes and a sample in one folder; the most probable class of IDS[i] is CODES[i]."""

    def __init__(self, root, ids=IDS, codes=CODES, label_space=HOME):
        self.root, self.label_space, self.out = root, label_space, root / "submission.csv"
        self.answers = dict(zip(ids, codes, strict=True))
        write_label_space(label_space, root / "classes.json")
        self.votes(ids)
        self.sample("ImageID,ans", [f"{name},0" for name in self.quoted(ids)])

    @staticmethod
    def quoted(ids):
        return [f'"{name}"' if "," in name else name for name in ids]

    def votes(self, ids, spoil=None):
        number = len(self.label_space.classes)
        codes = [self.answers.get(name, 0) for name in ids]
        probabilities = np.full((len(ids), number), 0.5 / (number - 1))
        probabilities[np.arange(len(ids)), codes] = 0.5
        frame = pd.DataFrame(probabilities, columns=[f"p_{name}" for name in self.label_space.classes])
        frame = frame.assign(image_id=ids, prediction=codes)
        frame["prediction_name"] = [self.label_space.classes[code] for code in codes]
        schema = votes_schema(self.label_space.classes, labelled=False)
        write_table(frame if spoil is None else spoil(frame), self.root / "test.parquet", schema)

    def sample(self, header, lines):
        (self.root / "sample.csv").write_text("\n".join([header, *lines]) + "\n", encoding="utf-8")

    def write(self, sample="sample.csv", **options):
        path = self.root / sample if sample else None
        write_submission(self.root / "test.parquet", self.root / "classes.json", path, self.out, **options)
        return self.out.read_text(encoding="utf-8").splitlines()

    def refused(self, *phrases, **options):
        with pytest.raises(UserError) as caught:
            self.write(**options)
        faults = caught.value.faults
        assert len(faults) == len(phrases), faults
        for phrase, fault in zip(phrases, faults, strict=True):
            assert phrase in fault
            assert ";" in fault
            assert ".tmp" not in fault
        assert sorted(path.name for path in self.root.iterdir()) == ["classes.json", "sample.csv", "test.parquet"]

    def check(self, lines, answer="code"):
        path, source, classes = self.root / "mine.csv", self.root / "sample.csv", self.label_space.classes
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")
        sample = read_csv(source)
        columns = answer_columns(sample, source, "ImageID", "ans", answer, classes)
        check_submission(read_csv(path), path, sample, source, columns, classes, "ImageID", answer)

    def faults(self, lines, **options):
        with pytest.raises(UserError) as caught:
            self.check(lines, **options)
        return caught.value.faults


@pytest.fixture
def case(tmp_path):
    return Case(tmp_path)


def test_rows_and_order_are_those_of_the_sample_and_ids_stay_text(case):
    expected = ["ImageID,ans", *(f"{name},{code}" for name, code in zip(case.quoted(IDS), CODES, strict=True))]
    assert case.write() == expected
    assert case.out.read_bytes().endswith(b'"a,b",5\n')
    case.sample("ImageID,ans", [f"{name},0" for name in case.quoted(IDS)[::-1]])
    assert case.write() == [expected[0], *expected[:0:-1]]


@given(st.integers(0, 2**32))
@settings(max_examples=10, deadline=None)
def test_f55_a_shuffled_test_table_gives_the_same_bytes(tmp_path_factory, seed):
    draws = generator(seed, "shuffle")
    ids = [f"{number:040x}.jpg" for number in range(30)]
    case = Case(tmp_path_factory.mktemp("case"), ids, draws.integers(0, 18, 30).tolist())
    case.write()
    before = case.out.read_bytes()
    case.votes([ids[place] for place in draws.permutation(30)])
    case.write()
    assert case.out.read_bytes() == before


def test_other_columns_and_their_places_are_kept(case):
    case.sample("fold,label,ImageID,note", [f"{n:03d},,{name},NA" for n, name in enumerate(case.quoted(IDS))])
    lines = case.write(answer_column="label")
    assert lines[0] == "fold,label,ImageID,note"
    assert lines[1] == "000,13,000020.jpg,NA"
    assert lines[-1] == '006,5,"a,b",NA'


def test_without_a_sample_all_images_stand_in_the_order_of_the_votes(case):
    assert case.write(sample=None, id_column="id", answer_column="label")[:3] == ["id,label", "000020.jpg,13", "1e5,0"]


def test_a_sample_of_ids_alone_gets_the_answer_column_and_a_misnamed_one_is_refused(case):
    case.sample("ImageID", case.quoted(IDS))
    assert case.write()[:2] == ["ImageID,ans", "000020.jpg,13"]
    case.out.unlink()
    case.sample("ImageID,ans", [f"{name},0" for name in case.quoted(IDS)])
    case.refused("has no column 'answer' for the answers; it has ImageID, ans", answer_column="answer")
    with pytest.raises(UserError, match="'id' is missing"):
        case.write(id_column="id")


def test_answers_as_names(case):
    assert case.write(answer="name")[1] == "000020.jpg,not-wear-male-30to59"


def test_f56_ids_that_are_missing_doubled_or_surplus_are_counted_and_named(case):
    ids = case.quoted(IDS)
    case.sample("ImageID,ans", [f"{name},0" for name in [*ids[2:], ids[2], *(f"new{n}" for n in range(7))]])
    case.refused(
        "1 ids stand twice or more: null",
        "7 ids of " + str(case.root / "sample.csv") + " are missing: new0, new1, new2, new3, new4, ...",
        "2 ids are not in " + str(case.root / "sample.csv") + ": 000020.jpg, 1e5",
    )


def test_f56_doubled_votes_are_refused(case):
    case.votes(IDS, spoil=lambda frame: pd.concat([frame, frame.iloc[:1]]))
    case.refused("1 rows stand twice or more, such as 000020.jpg")


def test_f57_rows_that_do_not_sum_to_one_are_refused(case):
    def spoil(frame):
        frame.loc[3, "p_wear-male-under30"] += 1e-3
        frame.loc[[4, 5], "p_wear-male-under30"] -= 1
        frame.loc[[4, 5], "p_wear-male-30to59"] += 1
        return frame

    case.votes(IDS, spoil)
    case.refused("3 images have probabilities that do not sum to 1: NA, 한글 사진.png, 007")


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_f57_probabilities_that_are_not_finite_are_refused(case, value):
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pq.read_table(case.root / "test.parquet")
    place = table.schema.get_field_index("p_wear-male-under30")
    column = pa.array([value, *([0.1] * 6)], from_pandas=False)
    pq.write_table(table.set_column(place, table.schema.field(place), column), case.root / "test.parquet")
    case.refused("p_wear-male-under30 is not finite in rows [0]")


def test_predictions_out_of_range_or_with_another_name_are_refused(case):
    case.votes(IDS, spoil=lambda frame: frame.assign(prediction=[18, -1, *CODES[2:]]))
    case.refused("2 predictions are not from 0 to 17: 000020.jpg, 1e5")
    case.votes(IDS, spoil=lambda frame: frame.assign(prediction=[12, *CODES[1:]]))
    case.refused("prediction and prediction_name of 1 images differ: 000020.jpg")


def test_f24_ids_and_class_names_that_look_like_formulas_are_handed_in_as_they_are(tmp_path):
    label_space = LabelSpace(("=SUM(A1)", "dog"))
    ids = ["@cmd.jpg", "-5", "+a", "'b"]
    case = Case(tmp_path, ids, [0, 1, 0, 1], label_space)
    assert case.write() == ["ImageID,ans", "@cmd.jpg,0", "-5,1", "+a,0", "'b,1"]
    assert case.write(answer="name")[1:3] == ["@cmd.jpg,=SUM(A1)", "-5,dog"]
    assert case.write(sample=None, id_column="=id")[0] == "=id,ans"


def test_a_failed_run_leaves_the_earlier_submission_as_it_was(case):
    case.write()
    before = case.out.read_bytes()
    case.votes(IDS[1:])
    with pytest.raises(UserError, match="1 ids of"):
        case.write()
    assert case.out.read_bytes() == before


def test_what_is_written_passes_the_check(case):
    for answer in ("code", "name"):
        case.check(case.write(answer=answer), answer=answer)


def test_what_would_be_handed_in_wrongly_is_not_written(case, monkeypatch):
    monkeypatch.setattr(writer, "answer_texts", lambda codes, *_: [f"{code}.0" for code in codes])
    case.refused("column ans: 7 answers are not a whole number from 0 to 17, written exactly so")


def test_check_refuses_answers_that_are_no_exact_codes(case):
    lines = case.write()
    for row, text in enumerate(["13.0", "+1", " 1", "18", "-1", "", "008"], start=1):
        lines[row] = f"{lines[row].rsplit(',', 1)[0]},{text}"
    (fault,) = case.faults(lines)
    assert "column ans: 7 answers are not a whole number from 0 to 17, written exactly so" in fault
    assert "'13.0' in row 2, '+1' in row 3, ' 1' in row 4, '18' in row 5, '-1' in row 6, ..." in fault
    (fault,) = case.faults(case.write(), answer="name")
    assert "7 answers are not a class name of data/classes.json" in fault


def test_check_refuses_missing_doubled_and_surplus_rows_with_their_counts(case):
    lines = case.write()
    faults = case.faults([*lines[:3], *lines[5:], lines[1], "other,3"])
    assert all(phrase in fault for phrase, fault in zip(("1 ids stand", "2 ids of", "1 ids are"), faults, strict=True))
    assert all(fault.startswith(str(case.root / "mine.csv")) for fault in faults)
    assert "twice or more: 000020.jpg" in faults[0]
    assert "are missing: NA, null" in faults[1]
    assert "other; remove them" in faults[2]


def test_check_refuses_another_order_and_names_its_first_row(case):
    lines = case.write()
    lines[3], lines[5] = lines[5], lines[3]
    (fault,) = case.faults(lines)
    assert "row 4 is 한글 사진.png, but null in" in fault


def test_check_refuses_other_columns(case):
    lines = case.write()
    (fault,) = case.faults([f"{line},x" for line in lines])
    assert "has the columns ImageID, ans, x, expected ImageID, ans" in fault


def test_classes_that_are_numbers_are_handed_in_as_these_numbers(tmp_path):
    case = Case(tmp_path, ["a.png", "b.png"], [4, 0], LabelSpace(("1", "2", "3", "4", "5")))
    assert case.write() == ["ImageID,ans", "a.png,5", "b.png,1"]
    case.check(["ImageID,ans", "a.png,5", "b.png,1"])
    (fault,) = case.faults(["ImageID,ans", "a.png,5", "b.png,0"])
    assert "1 answers are not a number of the data (1, 2, 3, 4, 5), written exactly so: '0' in row 3" in fault
    columns = case.write(sample=None, answer="probabilities")[0]
    assert columns == "ImageID,1,2,3,4,5"


def test_ids_of_a_sample_without_extension_stay_so_in_the_submission(tmp_path):
    case = Case(tmp_path, ["a.png", "b.png"], [1, 0], LabelSpace(("cat", "dog")))
    case.sample("ImageID,ans", ["b,0", "a,0"])
    assert case.write() == ["ImageID,ans", "b,0", "a,1"]
    case.sample("ImageID,ans", ["b,0", "c,0"])
    case.out.unlink()
    case.refused("1 ids of", "1 ids are not in")


def test_the_column_of_ids_is_never_overwritten(tmp_path):
    case = Case(tmp_path, ["a", "b"], [1, 0], LabelSpace(("id", "dog")))
    case.refused("'id' is a class as well", sample=None, id_column="id", answer="probabilities")
    case.refused("are both 'ImageID'", sample=None, answer_column="ImageID")
