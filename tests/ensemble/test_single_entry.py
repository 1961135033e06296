"""Any entry of the leaderboard applied to the test images, and submissions of probabilities."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from foldvote.config.ensemble import Vote
from foldvote.config.entry_names import entry_members
from foldvote.data.label_space import LabelSpace, write_label_space
from foldvote.ensemble.single_entry import write_entry
from foldvote.errors import UserError
from foldvote.evaluation.vote_table import votes_schema
from foldvote.io.csv_files import read_csv
from foldvote.io.parquet import read_table, write_table
from foldvote.submission.answers import answer_forms
from foldvote.submission.sample_matching import class_columns
from foldvote.submission.writer import answer_columns, check_submission, write_submission
from support.member_predictions import CLASSES, PROBABILITIES, TWO, Run, averaged

ALL = Vote(use="mean", kinds=["mean", "geometric", "mean+offsets"], calibration="none", draws=100)


def row_of(run: Run, row: str) -> pd.DataFrame:
    """The predictions of an entry for the test images."""
    path = run.root / "rows" / f"{row}.parquet"
    tests = [run.path("test", *member) for member in entry_members(row, run.models, run.k)]
    votes = run.root / "ensemble/votes.json" if row.startswith("vote=") else None
    own = (run.root / "folds.parquet", run.root / "certificate.json", run.root / "classes.json")
    write_entry(row, tests, run.k, *own, votes, path)
    return read_table(path, votes_schema(CLASSES, labelled=False), key=("image_id",))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Run:
    run = Run(tmp_path_factory.mktemp("rows"), models=TWO)
    run.make(settings=ALL)
    return run


def test_the_row_of_the_vote_that_is_used_is_the_ensemble(made: Run) -> None:
    pd.testing.assert_frame_equal(row_of(made, "vote=mean"), made.votes("test"))


def test_a_row_with_offsets_chooses_after_them(made: Run) -> None:
    plain, shifted = row_of(made, "vote=mean"), row_of(made, "vote=mean+offsets")
    assert np.allclose(plain[PROBABILITIES], shifted[PROBABILITIES])
    assert (plain["prediction"] == plain[PROBABILITIES].to_numpy().argmax(axis=1)).all()
    assert (plain["prediction"] != shifted["prediction"]).any()


def test_a_model_is_the_mean_of_its_folds_and_a_member_is_itself(made: Run) -> None:
    frames = [averaged(pd.read_parquet(made.path("test", "lite0", fold))) for fold in range(made.k)]
    model = row_of(made, "model=lite0").set_index("image_id")[PROBABILITIES].to_numpy()
    expected = sum(frame.loc[row_of(made, "model=lite0")["image_id"]].to_numpy() for frame in frames) / made.k
    assert np.allclose(model, expected, atol=1e-6)
    member = row_of(made, "model=lite0/fold=2")
    assert np.allclose(member[PROBABILITIES], frames[2].loc[member["image_id"]], atol=1e-6)


def test_rows_that_do_not_exist_are_refused_with_those_that_do(made: Run) -> None:
    with pytest.raises(UserError, match=r"no vote 'rank', but geometric, mean, mean\+offsets: add it to vote\.kinds"):
        row_of(made, "vote=rank")
    with pytest.raises(UserError, match="no model 'big'; known: lite0, resnet"):
        entry_members("model=big", TWO, 4)
    with pytest.raises(UserError, match="no fold 4; the last one is 3"):
        entry_members("model=lite0/fold=4", TWO, 4)


def test_a_model_of_one_factor_is_no_whole_answer(tmp_path: Path) -> None:
    run = Run(tmp_path, models={"masks": ("identity",)})
    for fold in range(run.k):
        run.member("test", "masks", fold, record_with={"factors": ["mask"]})
    for row in ("model=masks", "model=masks/fold=0"):
        with pytest.raises(UserError, match="learns only mask, which is no whole answer"):
            row_of(run, row)


def submitted(run: Run, sample: str | None) -> pd.DataFrame:
    """The submission in the wide form."""
    out, given = run.root / "wide.csv", None
    if sample is not None:
        given = run.root / "sample.csv"
        ids = run.votes("test")["image_id"][::-1]
        frame = pd.DataFrame({"ImageID": ids}).assign(**{name: "0" for name in sample.split(",") if name})
        frame.to_csv(given, index=False)
    files = (run.root / "ensemble/test.parquet", run.root / "classes.json", given, out)
    write_submission(*files, answer="probabilities")
    return read_csv(out, required=["ImageID"]).set_index("ImageID").astype(float)


@pytest.mark.parametrize("columns", [None, "", ",".join(CLASSES[::-1]), "5,3,4,0,1,2"])
def test_the_wide_form_has_a_column_a_class_in_the_samples_order(made: Run, columns: str | None) -> None:
    wide = submitted(made, columns)
    votes = made.votes("test").set_index("image_id")
    names = (columns or ",".join(CLASSES)).split(",")
    assert list(wide.columns) == names
    codes = [int(name) if name.isdigit() else CLASSES.index(name) for name in names]
    assert np.allclose(wide, votes.loc[wide.index, [PROBABILITIES[code] for code in codes]], atol=1e-9)
    assert list(wide.index) == list(votes.index if columns is None else votes.index[::-1])


def test_a_sample_whose_columns_are_no_classes_is_refused_with_both_sides(made: Run) -> None:
    with pytest.raises(UserError, match=r"2 columns are no class: cat, dog; 6 classes have no column: "):
        submitted(made, "cat,dog")


def wide_columns(columns, classes):
    return class_columns(columns, answer_forms(classes, "probabilities"), "sample.csv")


def test_of_two_classes_one_column_asks_for_the_second(tmp_path: Path) -> None:
    assert wide_columns(["target"], ["healthy", "ill"]) == {"target": 1}
    assert wide_columns(["ill", "healthy"], ["healthy", "ill"]) == {"ill": 1, "healthy": 0}
    with pytest.raises(UserError, match="1 columns are no class: target"):
        wide_columns(["target"], ["a", "b", "c"])


@given(st.integers(0, 2**32 - 1), st.floats(0.01, 3))
@settings(max_examples=25, deadline=None)
def test_whatever_is_written_wide_sums_to_one_and_passes_the_check(
    tmp_path_factory: pytest.TempPathFactory, seed: int, flatness: float
) -> None:
    root, classes = tmp_path_factory.mktemp("wide"), [f"c{number}" for number in range(40)]
    probabilities = np.random.default_rng(seed).dirichlet(np.full(40, flatness), 6)
    frame = pd.DataFrame(probabilities, columns=[f"p_{name}" for name in classes])
    frame = frame.assign(image_id=list("abcdef"), prediction=probabilities.argmax(axis=1))
    frame["prediction_name"] = [classes[code] for code in frame["prediction"]]
    write_table(frame, root / "votes.parquet", votes_schema(classes, labelled=False))
    write_label_space(LabelSpace(tuple(classes)), root / "classes.json")
    (root / "sample.csv").write_text("ImageID\n" + "\n".join("fedcba") + "\n", encoding="utf-8")
    write_submission(
        root / "votes.parquet", root / "classes.json", root / "sample.csv", root / "out.csv", answer="probabilities"
    )
    wide = read_csv(root / "out.csv", required=classes)[classes].astype(float).to_numpy()
    assert np.abs(wide[::-1] - probabilities).max() <= 1e-9


def test_the_check_refuses_what_is_no_probability(made: Run) -> None:
    submitted(made, "")
    path = made.root / "wide.csv"
    lines = path.read_text(encoding="utf-8").splitlines()
    for at, cells in ((1, ["nan"] * 6), (2, ["1.5"] + ["0"] * 5), (3, ["0.5"] + ["0.1"] * 4 + ["0.2"])):
        lines[at] = ",".join([lines[at].rsplit(",", 6)[0], *cells])
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    sample = read_csv(made.root / "sample.csv")
    columns = answer_columns(sample, "sample.csv", "ImageID", "ans", "probabilities", CLASSES)
    with pytest.raises(UserError) as caught:
        check_submission(read_csv(path), path, sample, "sample.csv", columns, CLASSES, "ImageID", "probabilities")
    faults = caught.value.faults
    assert len(faults) == 2
    assert "2 rows hold answers that are no numbers from 0 to 1: row 2, row 3" in faults[0]
    assert "the probabilities of 1 rows do not sum to 1: row 4" in faults[1]
