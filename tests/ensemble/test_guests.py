"""Predictions from elsewhere: what is refused, and that a guest votes like a model."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from foldvote.config.ensemble import Vote
from foldvote.ensemble.guests import GuestFiles, check_guests, header_faults
from foldvote.ensemble.leaderboard import GUEST_COLUMNS, summary
from foldvote.ensemble.single_entry import write_entry
from foldvote.errors import UserError
from foldvote.evaluation.vote_table import votes_schema
from foldvote.inference.prediction_files import LOGIT
from foldvote.io.files import read_json, write_json
from foldvote.io.parquet import read_table, write_table
from foldvote.runtime.seeding import generator
from foldvote.splits.folds import FOLDS, split_sha256
from support.member_predictions import CLASSES, MEAN, PROBABILITIES, TWO, Run, averaged

ONE = {"lite0": TWO["lite0"]}
# Not `auto`, which without a reserve looks at how far the members of a model are apart; a guest has none.
COMPARED = Vote(kinds=["mean", "best_model", "weights"], calibration="temperature", draws=100)


def table_of(run: Run, model: str, split: str) -> pd.DataFrame:
    """A model's predictions as a guest's table: the mean over the members that predict an image, in float32."""
    folds = [run.frame(split, model, fold) for fold in range(run.expected[model])]
    frames = [averaged(frame).astype(np.float32) for frame in folds]
    if split == "oof":
        table = pd.concat(frames).assign(fold=np.repeat(np.arange(len(frames)), [len(frame) for frame in frames]))
    else:
        total = np.zeros(frames[0].shape, np.float32)
        for frame in frames:
            total += frame.loc[frames[0].index].to_numpy()
        table = pd.DataFrame(total / np.float32(len(frames)), frames[0].index, frames[0].columns)
    return table.rename(columns=dict(enumerate(CLASSES))).rename_axis("image_id").reset_index()


def guest_of(run: Run, tables: dict[str, pd.DataFrame], kind: str = "parquet") -> GuestFiles:
    """The tables as files of a guest."""
    paths = {}
    for part, table in tables.items():
        paths[part] = run.root / f"guest-{part}.{kind}"
        if kind == "csv":
            table.to_csv(paths[part], index=False)
        else:
            table.to_parquet(paths[part], index=False)
    return GuestFiles(**paths)


def tables(run: Run, source: Run | None = None, model: str = "resnet") -> dict[str, pd.DataFrame]:
    """A guest's tables, made of a model of a run of the same images."""
    parts = ["oof", *(["test"] if run.tests else []), *(["reserve"] if run.reserve else [])]
    return {part: table_of(source or run, model, part) for part in parts}


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> tuple[Run, Run, dict[str, pd.DataFrame]]:
    """A run of two models; a run of the first of them alone; and the tables of the second one."""
    both = Run(tmp_path_factory.mktemp("both"), models=TWO)
    both.make()
    alone = Run(tmp_path_factory.mktemp("alone"), models=ONE)
    return both, alone, tables(both)


@pytest.mark.parametrize("reserve", [0, 30])
def test_a_guest_equal_to_a_model_changes_nothing_but_names_and_costs(tmp_path: Path, reserve: int) -> None:
    both = Run(tmp_path / "both", models=TWO, reserve=reserve)
    both.make(settings=COMPARED)
    alone = Run(tmp_path / "alone", models=ONE, reserve=reserve)
    alone.make(settings=COMPARED, guests={"resnet": guest_of(both, tables(both))})
    for split in ("oof", "test", *(["reserve"] if reserve else [])):
        pd.testing.assert_frame_equal(alone.votes(split), both.votes(split), check_exact=True)
    votes = [read_json(run.root / "ensemble/votes.json") for run in (both, alone)]
    assert votes[0] == votes[1]
    weights = [read_json(run.root / "ensemble/weights.json") for run in (both, alone)]
    assert weights[1] == weights[0] | {"guests": ["resnet"]}
    one, other = both.metrics, alone.metrics
    assert one["oof"]["votes"] == other["oof"]["votes"]
    assert one["oof"]["models"] == other["oof"]["models"]
    assert set(other["oof"]["members"]) == {"lite0"}
    assert other["guests"]["resnet"]["folds"] == "as here"
    assert other["guests"]["resnet"]["suspicions"] == []
    board = alone.leaderboard
    assert tuple(board.columns[-1:]) == GUEST_COLUMNS
    row = board[board["kind"] == "guest"].iloc[0]
    before = both.leaderboard.set_index(["kind", "model"]).loc[("model", "resnet")]
    scores = [name for name in before.index if name not in ("fold", "macro_f1_over_folds") and "_s" not in name]
    assert (row[[name for name in scores if name != "megabytes"]] == before[scores].drop("megabytes")).all()
    assert row[["fit_seconds", "predict_seconds", "megabytes", "suspicion"]].tolist() == [""] * 4
    assert "resnet (guest)" in summary(board, other)


@given(st.integers(0, 2**32), st.sampled_from(["name", "p_name", "code"]), st.booleans())
@settings(max_examples=8, deadline=None)
def test_forms_orders_and_names_of_columns_give_the_same(
    pair: tuple[Run, Run, dict[str, pd.DataFrame]], seed: int, form: str, own_id: bool
) -> None:
    both, alone, own = pair
    draws = generator(seed, "guest")
    renamed = {
        name: {"name": name, "p_name": f"p_{name}", "code": str(code)}[form] for code, name in enumerate(CLASSES)
    }
    renamed |= {"image_id": "ImageID"} if own_id else {}
    changed = {}
    for part, table in own.items():
        mixed = table.iloc[draws.permutation(len(table))].rename(columns=renamed).assign(prediction="any")
        changed[part] = mixed[[mixed.columns[place] for place in draws.permutation(len(mixed.columns))]]
    alone.make(guests={"resnet": guest_of(alone, changed, "csv" if seed % 2 else "parquet")})
    for split in ("oof", "test"):
        pd.testing.assert_frame_equal(alone.votes(split), both.votes(split), check_exact=True)


def leaky(table: pd.DataFrame, labels: pd.Series) -> pd.DataFrame:
    """The table with the truth in place of the predictions."""
    values = np.full((len(table), len(CLASSES)), 0.001)
    values[np.arange(len(table)), labels.loc[table["image_id"]].to_numpy()] = 0.995
    return table.assign(**dict(zip(CLASSES, values.T, strict=True)))


def test_a_guest_that_leaks_is_named_with_numbers(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = Run(tmp_path, models=TWO, reserve=60, images=60)
    own = tables(run)
    own["oof"] = leaky(own["oof"], run.folds.set_index("image_id")["label"])
    run.make(guests={"friend": guest_of(run, own)})
    found = run.metrics["guests"]["friend"]
    assert found["confidence"]["oof"] == pytest.approx(0.995, abs=1e-6)
    signs = ["out-of-fold accuracy 1.000 (1.000 to 1.000) is far better than", "the best model of this run"]
    signs += ["on the reserve", "much surer out of fold than on the test images: 0.995 against 0."]
    printed, board = capsys.readouterr().err, run.leaderboard.set_index(["kind", "model"])
    for sign in signs:
        assert any(sign in text for text in found["suspicions"]), found["suspicions"]
        assert sign in printed
        assert sign in board.loc[("guest", "friend"), "suspicion"]
    assert "warning: guests.friend: " in printed
    assert "friend (guest, suspicious)" in summary(run.leaderboard, run.metrics)
    assert (board.loc["model", "suspicion"] == "").all()


def test_a_guest_that_knows_near_duplicates_is_named(tmp_path: Path) -> None:
    """It knows the truth where a person looks like another one, and is a model like any other elsewhere."""
    run = Run(tmp_path, models=ONE, images=80)
    source = Run(tmp_path / "source", models=TWO, images=80)
    ids = run.folds["image_id"].tolist()
    pairs = [{"distance": 1, "a": ids[at], "b": ids[at + 1]} for at in range(0, 40, 2)]
    write_json(tmp_path / "certificate.json", {"split_sha256": run.digest, "near_duplicates": {"nearest": pairs}})
    own = tables(run, source)
    run.make(guests={"friend": guest_of(run, own)})
    assert run.metrics["guests"]["friend"]["suspicions"] == []
    gain = run.metrics["guests"]["friend"]["near_duplicates"]
    assert (gain["images"], gain["groups"]) == (40, 40)
    known = own["oof"]["image_id"].isin(ids[:40])
    truth = leaky(own["oof"], run.folds.set_index("image_id")["label"])
    own["oof"] = own["oof"].where(~known, truth)
    run.make(guests={"friend": guest_of(run, own)})
    texts = run.metrics["guests"]["friend"]["suspicions"]
    assert any("on 40 images of people with near-duplicates its accuracy is 1.000, elsewhere 0." in t for t in texts)


def test_a_guest_that_is_only_calibrated_is_not_suspicious(tmp_path: Path) -> None:
    """A model that is far too sure has a bad log-loss; the same one with a temperature has seen no more than it has."""
    run = Run(tmp_path, models=ONE, images=80)

    def surer(frame: pd.DataFrame) -> pd.DataFrame:
        return frame.assign(**{name: frame[name] * np.float32(6) for name in frame if name.startswith(LOGIT)})

    source = Run(tmp_path / "source", models={"lite0": ONE["lite0"]}, images=80)
    for split in ("oof", "test"):
        for fold in range(run.k):
            run.member(split, "lite0", fold, spoil=surer)
    run.make(guests={"friend": guest_of(run, tables(run, source, "lite0"))})
    models = run.metrics["oof"]["models"]
    assert models["friend"]["intervals"]["log_loss"][1] < models["lite0"]["intervals"]["log_loss"][0]
    assert run.metrics["guests"]["friend"]["suspicions"] == []


def altered(place: int, column: str, value: object) -> object:
    """A change of one cell of a table."""

    def change(table: pd.DataFrame) -> pd.DataFrame:
        table = table.astype({column: object})
        table.iloc[place, table.columns.get_loc(column)] = value
        return table

    return change


SPOILED = {
    "missing": (lambda table: table.iloc[1:], "1 ids of the validated images are missing"),
    "doubled": (lambda table: pd.concat([table, table.iloc[:1]]), "1 ids stand twice or more"),
    "foreign": (altered(3, "image_id", "x"), "1 ids are not in the validated images: x"),
    "nan": (altered(4, "not-old", "nan"), "1 rows hold values that are no numbers from 0 to 1: row 6 ("),
    "text": (altered(4, "not-old", "high"), "1 rows hold values that are no numbers from 0 to 1: row 6 ("),
    "logit": (altered(0, "not-old", -1.5), "1 rows hold values that are no numbers from 0 to 1: row 2 ("),
    "sum": (lambda table: table.assign(**{"not-old": 0}), "rows do not sum to 1 within 0.01: row 2 ("),
    "no fold": (altered(1, "fold", ""), "1 rows have no fold: row 3 ("),
    "classes": (lambda table: table.drop(columns=CLASSES[:2]), "2 of 6 classes have no column: wear-young, wear-old"),
    "id": (lambda table: table.rename(columns={"image_id": "id"}), "has no column of ids, image_id or ImageID"),
}


@pytest.mark.parametrize("case", SPOILED)
def test_tables_that_do_not_fit_are_refused_by_file_and_row(
    pair: tuple[Run, Run, dict[str, pd.DataFrame]], tmp_path: Path, case: str
) -> None:
    spoil, phrase = SPOILED[case]
    run = Run(tmp_path, models=ONE)
    own = {part: table.copy() for part, table in pair[2].items()}
    own["oof"] = spoil(own["oof"])
    with pytest.raises(UserError) as caught:
        run.make(guests={"friend": guest_of(run, own, "csv")})
    assert any(phrase in fault for fault in caught.value.faults), caught.value.faults
    assert all(fault.startswith("guests.friend: ") and "guest-oof.csv" in fault for fault in caught.value.faults)
    assert not (tmp_path / "ensemble").exists()


def test_all_faults_of_all_guests_are_told_at_once(
    pair: tuple[Run, Run, dict[str, pd.DataFrame]], tmp_path: Path
) -> None:
    run = Run(tmp_path, models=ONE)
    own = pair[2] | {"oof": altered(2, "fold", "")(altered(4, "not-old", "x")(pair[2]["oof"].iloc[1:]))}
    own["test"] = own["test"].iloc[2:]
    files = guest_of(run, own, "csv")
    run.refused(
        "guests.friend: ", "have no fold", "1 ids of the validated", "2 ids of the test images", "guests.other: ",
        "has no file `test`",
        guests={"friend": files, "other": GuestFiles(tmp_path / "nowhere.csv")},
    )  # fmt: skip


def test_rows_that_nearly_sum_to_one_are_divided_by_their_sum(
    pair: tuple[Run, Run, dict[str, pd.DataFrame]], tmp_path: Path
) -> None:
    run = Run(tmp_path, models=ONE)
    own = {part: table.round(3) for part, table in pair[2].items()}
    run.make(guests={"resnet": guest_of(run, own, "csv")})
    assert run.metrics["guests"]["resnet"]["normalised"] > 0
    oof = run.votes("oof")[PROBABILITIES]
    np.testing.assert_allclose(oof.sum(axis=1), 1, atol=1e-6)
    run.make(guests={"resnet": guest_of(run, pair[2], "csv")})
    np.testing.assert_allclose(oof, run.votes("oof")[PROBABILITIES], atol=0.002)


def test_folds_that_part_a_group_are_refused_and_other_whole_ones_are_told(
    pair: tuple[Run, Run, dict[str, pd.DataFrame]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = Run(tmp_path, models=ONE)
    run.folds["group"] = [f"g{place // 2}" for place in range(len(run.folds))]
    of_group = run.folds.drop_duplicates("image_id").set_index("image_id")["group"]
    # Pairs of images become groups, which the split must keep whole too; so the folds are dealt anew.
    run.folds["fold"] = [place // 2 % 4 for place in range(len(run.folds))]
    run.digest = split_sha256(run.folds)
    write_table(run.folds, tmp_path / "folds.parquet", FOLDS, record={"split_sha256": run.digest})
    write_json(tmp_path / "certificate.json", {"split_sha256": run.digest})
    for split in ("oof", "test"):
        for fold in range(4):
            run.member(split, "lite0", fold)

    def with_folds(folds: object) -> dict[str, GuestFiles]:
        oof = pair[2]["oof"].drop(columns="fold")
        return {"friend": guest_of(run, pair[2] | {"oof": oof if folds is None else oof.assign(fold=folds(oof))})}

    run.refused(
        "12 groups stand in several of its folds: g0, g1, g10, g11, g2, ...; its networks have seen the people",
        guests=with_folds(lambda oof: [int(name[:6]) % 2 for name in oof["image_id"]]),
    )
    cases = {
        "as here": lambda oof: [f"part {(int(name[:6]) // 2) % 4}" for name in oof["image_id"]],
        "others": lambda oof: (of_group.loc[oof["image_id"]].str[1:].astype(int) % 3).tolist(),
        "not given": None,
    }
    for told, folds in cases.items():
        guests, own = with_folds(folds), (run.root / name for name in ("folds.parquet", "certificate.json"))
        check_guests(guests, *own, run.root / "classes.json", None, "ImageID", tmp_path / "guests.json")
        assert read_json(tmp_path / "guests.json")["friend"]["folds"] == told
        assert "guests.friend: its " in capsys.readouterr().err
        run.make(guests=guests)
        assert run.metrics["guests"]["friend"]["folds"] == told


def test_one_table_of_all_training_images_serves_folds_and_reserve(tmp_path: Path) -> None:
    run = Run(tmp_path, models=TWO, reserve=20)
    own = tables(run)
    run.make(guests={"friend": guest_of(run, own)})
    before = [run.votes(split) for split in ("oof", "reserve")]
    whole = pd.concat([own["oof"].drop(columns="fold"), own["reserve"]])
    run.make(guests={"friend": guest_of(run, own | {"oof": whole, "reserve": whole})})
    for split, votes in zip(("oof", "reserve"), before, strict=True):
        pd.testing.assert_frame_equal(run.votes(split), votes, check_exact=True)


def test_repeats_and_a_holdout_take_guests_too(tmp_path: Path) -> None:
    run = Run(tmp_path / "repeats", models=ONE, k=3, repeats=2)
    source = Run(tmp_path / "source", models=TWO, k=3)
    run.make(settings=Vote(kinds=["mean"], draws=100), guests={"friend": guest_of(run, tables(run, source))})
    assert run.metrics["guests"]["friend"]["folds"] == "as here"
    assert "members_curve" in run.metrics
    run = Run(tmp_path / "holdout", models=ONE, holdout=True)
    source = Run(tmp_path / "whole", models=TWO)
    run.make(guests={"friend": guest_of(run, tables(run, source))})
    assert run.metrics["oof"]["models"]["friend"]["images"] == 6


def test_a_guest_joins_the_submission_of_a_vote_and_may_be_submitted_alone(
    pair: tuple[Run, Run, dict[str, pd.DataFrame]], tmp_path: Path
) -> None:
    both, own = pair[0], pair[2]
    run = Run(tmp_path, models=ONE)
    files = guest_of(run, own, "csv")
    run.make(settings=MEAN, guests={"resnet": files})
    split = (run.root / "folds.parquet", run.root / "certificate.json", run.root / "classes.json")
    schema = votes_schema(CLASSES, labelled=False)
    tests = [run.path("test", "lite0", fold) for fold in range(4)]
    out, guests = tmp_path / "row.parquet", {"resnet": files.test}
    write_entry("vote=mean", tests, 4, *split, run.root / "ensemble/votes.json", out, guests)
    pd.testing.assert_frame_equal(read_table(out, schema), run.votes("test"), check_exact=True)
    write_entry("model=resnet", tests[:1], 4, *split, None, out, guests)
    alone = read_table(out, schema)
    tests = [both.path("test", "resnet", fold) for fold in range(4)]
    write_entry("model=resnet", tests, 4, *split, None, out)
    pd.testing.assert_frame_equal(alone, read_table(out, schema), check_exact=True)
    own["test"].iloc[1:].to_csv(files.test, index=False)
    with pytest.raises(UserError, match="1 ids of the test images are missing"):
        write_entry("model=resnet", [run.path("test", "lite0", 0)], 4, *split, None, out, guests)


def test_the_header_alone_shows_what_is_missing(tmp_path: Path) -> None:
    path = tmp_path / "guest.csv"
    path.write_text("name,a,b\n", encoding="utf-8")
    assert "has no column of ids, image_id or ImageID" in header_faults(path, "ImageID", None)[0]
    assert header_faults(path, "name", None) == header_faults(path, "name", ["a", "b"]) == []
    assert "1 of 3 classes have no column: c" in header_faults(path, "name", ["a", "b", "c"])[0]
    assert "cannot be read as CSV or parquet" in header_faults(tmp_path / "nowhere.pq", "name", None)[0]
