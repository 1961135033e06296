"""Likely label errors: planted ones come first, each as the one decision that it is."""

import importlib.util
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from foldvote.config.data import layout_section
from foldvote.data.label_corrections import apply_corrections
from foldvote.data.label_space import LabelSpace
from foldvote.data.layouts.registry import layout_of
from foldvote.evaluation.label_issues import BETWEEN, LABEL_ISSUES, draft_corrections, label_issues, write_draft
from foldvote.evaluation.probabilities import softmax
from foldvote.io.csv_files import read_csv, write_csv
from foldvote.io.parquet import read_table, write_table
from foldvote.runtime.seeding import generator
from support.data_folders import config_for
from support.member_predictions import Run
from support.simulated_persons import HOME, perfect, simulated

MASKBASE = layout_of(layout_section({"layout": "maskbase"}))


def benchmark(name="label_errors"):
    """A module of benchmarks/: label_errors, which measures, or plant_errors."""
    path = Path(__file__).parents[2] / "benchmarks" / f"{name}.py"
    spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def recoded(rows, place, field, level):
    """The labels with another level of a field at some rows."""
    names = list(HOME.factors)
    codes = {name: HOME.level_codes(name)[rows["label"].to_numpy()] for name in names}
    codes[field] = np.where(place, level, codes[field])
    return rows.assign(label=np.ravel_multi_index([codes[name] for name in names], (3, 2, 3)))


def swapped(rows, first, second):
    """The labels with two rows' mask states changed."""
    masks = HOME.level_codes("mask")[rows["label"].to_numpy()]
    rows = recoded(rows, rows.index == first, "mask", masks[second])
    return recoded(rows, rows.index == second, "mask", masks[first])


@pytest.mark.parametrize("seed", range(3))
def test_planted_errors_are_found_better_than_by_self_confidence(seed):
    rows, probabilities, by_model = simulated(seed, persons=200, sure=2.5)
    module, truth = benchmark(), rows["label"].to_numpy()
    spoilt = rows.assign(label=module.plant(rows, HOME, 0.03, seed))
    found = module.measure(spoilt, truth, probabilities, by_model, HOME)
    assert found["planted"] > 60
    assert found["foldvote"][0] > found["self-confidence"][0] + 0.05
    assert found["foldvote"][1] == found["foldvote"][0]


def test_a_flipped_gender_is_one_row_a_person():
    rows, probabilities, by_model = simulated(sure=4.0)
    flipped = ["000004_person", "000031_person"]
    person = rows["profile"].isin(flipped).to_numpy()
    was = HOME.level_codes("gender")[rows["label"].to_numpy()]
    spoilt = recoded(rows, person, "gender", 1 - was)
    issues = label_issues(spoilt, probabilities, by_model, HOME)
    first = issues.head(2)
    assert sorted(first["profile"]) == flipped
    assert set(first["field"]) == {"gender"}
    assert set(first["kind"]) == {"person"}
    assert (first["score"] > 0.95).all()
    assert (first["shots"] >= 6).all()
    assert (first["margin"] < 0).all()
    assert (first["disagreement"] < 0.2).all()
    own = issues[issues["field"].isin(["gender", "age"])]
    assert not own.duplicated(["profile", "field"]).any()
    for issue in first.to_dict("records"):
        ids = sorted(rows.loc[rows["profile"] == issue["profile"], "image_id"])
        assert issue["image_id"].split(BETWEEN) == ids
        true = HOME.factors["gender"][was[rows["profile"] == issue["profile"]][0]]
        assert issue["suggested"] == true != issue["given"]


def test_a_swap_is_one_row_of_two_images():
    rows, probabilities, by_model = simulated(sure=4.0)
    spoilt = swapped(rows, 7 * 11 + 5, 7 * 11 + 6)
    issues = label_issues(spoilt, probabilities, by_model, HOME)
    first = issues.iloc[0]
    assert first["kind"] == "swap"
    assert first["field"] == "mask"
    pair = {first["image_id"]: first["given"], first["other_image_id"]: first["suggested"]}
    assert pair == {"000011_person/incorrect_mask.jpg": "not-wear", "000011_person/normal.jpg": "incorrect"}
    assert first["shots"] == 2
    assert first["score"] > 0.99
    assert first["margin"] < 0
    others = issues.iloc[1:]
    assert not others.loc[others["field"] == "mask", "image_id"].isin(pair).any()


def test_one_odd_shot_is_an_image():
    rows, probabilities, by_model = simulated(sure=5.0, noise=0.3)
    issues = label_issues(recoded(rows, rows.index == 15, "mask", 2), probabilities, by_model, HOME)
    assert issues.iloc[0][["image_id", "kind", "given", "suggested"]].tolist() == [
        rows["image_id"][15], "image", "not-wear", "wear",
    ]  # fmt: skip
    odd = recoded(rows, rows.index == 16, "gender", 1 - HOME.level_codes("gender")[rows["label"][16]])
    issue = label_issues(odd, probabilities, by_model, HOME).iloc[0]
    assert issue[["image_id", "kind", "field"]].tolist() == [rows["image_id"][16], "image", "gender"]


def test_perfect_predictions_leave_no_suspects():
    rows, _, _ = simulated()
    own = perfect(rows)
    assert label_issues(rows, own, own[None].astype(np.float32), HOME).empty
    issues = label_issues(rows, own, own[None], HOME, least=0.0)
    assert len(issues) == 420 + 2 * 60
    assert issues["score"].max() < 1e-3


def test_the_order_of_rows_changes_nothing(tmp_path):
    rows, probabilities, by_model = simulated(3, sure=2.0)
    rows = swapped(rows, 5, 6)
    issues = label_issues(rows, probabilities, by_model, HOME)
    assert issues["rank"].tolist() == list(range(1, len(issues) + 1))
    assert set(issues["kind"]) == {"person", "swap", "image"}
    for name in ("score", "self_confidence", "disagreement"):
        assert issues[name].between(0, 1).all()
    order = generator(3, "order").permutation(len(rows))
    again = label_issues(rows.iloc[order], probabilities[order], by_model[:, order], HOME)
    pd.testing.assert_frame_equal(again, issues, rtol=1e-9)
    write_table(issues, tmp_path / "issues.parquet", LABEL_ISSUES, key=("rank",))
    back = read_table(tmp_path / "issues.parquet", LABEL_ISSUES)
    assert back["image_id"].tolist() == issues["image_id"].tolist()


def test_no_factors_and_no_models():
    label_space, draws = LabelSpace(("cat", "dog", "emu")), generator(1, "plain")
    label = np.arange(90) % 3
    probabilities = softmax(draws.normal(0, 0.5, (90, 3)) + 5 * np.eye(3)[label])
    rows = pd.DataFrame({"image_id": [f"{number:02d}" for number in range(90)], "label": label})
    rows["profile"] = rows["image_id"]
    rows.loc[42, "label"] = 1
    issues = label_issues(rows, probabilities, np.zeros((0, 90, 3)), label_space)
    assert issues.iloc[0][["image_id", "field", "given", "suggested", "kind"]].tolist() == [
        "42", "label", "dog", "cat", "image",
    ]  # fmt: skip
    assert issues["disagreement"].eq(0).all()
    table = layout_of(layout_section({"layout": "table", "table": "t.csv", "label": "species"}))
    assert draft_corrections(issues, 1, table).iloc[0, :4].tolist() == ["42", "species", "dog", "cat"]
    with pytest.raises(ValueError, match="by_model"):
        label_issues(rows, probabilities, np.zeros((1, 89, 3)), label_space)


def test_many_images_of_one_person_pair_up_as_swaps():
    label_space, label = LabelSpace(("a", "b")), np.arange(40) % 2
    rows = pd.DataFrame({"image_id": [f"{number:02d}" for number in range(40)], "label": label, "profile": "p"})
    probabilities = 0.05 + 0.9 * np.eye(2)[label]
    rows.loc[[0, 2, 4, 1, 3], "label"] = [1, 1, 1, 0, 0]
    issues = label_issues(rows, probabilities, probabilities[None], label_space)
    assert issues["kind"].tolist() == ["swap", "swap", "image"]
    pairs = issues[["image_id", "other_image_id"]].head(2).to_numpy().ravel().tolist()
    assert sorted([*pairs, issues["image_id"][2]]) == ["00", "01", "02", "03", "04"]


def entries(rows):
    """What the home task's layout gives to the corrections."""
    frame = rows[["image_id", "profile"]].assign(path=rows["image_id"], group=rows["profile"])
    for name, levels in HOME.factors.items():
        frame[name] = np.array(levels, dtype=object)[HOME.level_codes(name)[rows["label"].to_numpy()]]
    years = frame["age"].map({"under30": 20, "30to59": 40, "60plus": 60})
    return frame.assign(person_id=frame["profile"].str[:6], age_years=pd.array(years, dtype="Int16"))


def test_drafts_put_the_home_task_right_once_they_are_allowed(tmp_path):
    rows, probabilities, by_model = simulated(sure=6.0, noise=0.3)
    person = (rows["profile"] == "000004_person").to_numpy()
    spoilt = recoded(rows, person, "gender", 1 - HOME.level_codes("gender")[rows["label"][28]])
    person = (rows["profile"] == "000009_person").to_numpy()
    spoilt = recoded(spoilt, person, "age", (HOME.level_codes("age")[rows["label"][63]] + 1) % 3)
    spoilt = swapped(spoilt, 7 * 20 + 5, 7 * 20 + 2)
    issues = label_issues(spoilt, probabilities, by_model, HOME)
    drafts = draft_corrections(issues, 3, MASKBASE)
    assert sorted(drafts["field"]) == ["age", "gender", "shots"]
    assert set(drafts["certainty"]) == {"suspected"}
    write_table(issues, tmp_path / "issues.parquet", LABEL_ISSUES, ("rank",))
    write_draft(tmp_path / "issues.parquet", tmp_path / "draft.csv", 3, MASKBASE)
    pd.testing.assert_frame_equal(read_csv(tmp_path / "draft.csv"), drafts.reset_index(drop=True))
    settings = {"corrections": str(tmp_path / "draft.csv")}
    untouched, summary = apply_corrections(entries(spoilt), config_for(tmp_path, **settings))
    assert not untouched["corrected"].any()
    assert summary["skipped"] == {"certainty suspected": 3}
    right, _ = apply_corrections(entries(spoilt), config_for(tmp_path, corrections_certainty=["suspected"], **settings))
    assert right[list(HOME.factors)].equals(entries(rows)[list(HOME.factors)])


def test_drafts_of_a_table_name_both_images_of_a_swap(tmp_path):
    rows, probabilities, by_model = simulated(sure=6.0, noise=0.3)
    spoilt = swapped(rows, 7 * 20 + 5, 7 * 20 + 2)
    layout = {"layout": "table", "table": "t.csv", "path": "path", "group": "g", "label": None, "factors": HOME.factors}
    table = layout_of(layout_section(layout))
    drafts = draft_corrections(label_issues(spoilt, probabilities, by_model, HOME), 1, table)
    write_csv(drafts, tmp_path / "draft.csv")
    config = config_for(tmp_path, layout, corrections=str(tmp_path / "draft.csv"), corrections_certainty=["suspected"])
    right, _ = apply_corrections(entries(spoilt), config)
    assert right["corrected"].sum() == 2
    assert right["mask"].equals(entries(rows)["mask"])
    assert draft_corrections(label_issues(rows, perfect(rows), by_model, HOME), 5, table).empty


def test_the_benchmark_reads_a_finished_run(tmp_path, monkeypatch, capsys):
    run = Run(tmp_path, {"lite0": ("identity",), "resnet": ("identity", "hflip")}, images=60)
    run.make()
    (tmp_path / "data").mkdir()
    (tmp_path / "classes.json").rename(tmp_path / "data/classes.json")
    module = benchmark()
    rows, probabilities, by_model, label_space = module.read_results(tmp_path)
    assert rows["image_id"].tolist() == run.votes("oof")["image_id"].tolist()
    assert len(label_space.classes) == 6
    np.testing.assert_allclose(by_model.mean(axis=0), probabilities, atol=1e-6)
    monkeypatch.setattr("sys.argv", ["label_errors.py", "--results", str(tmp_path), "--times", "2"])
    module.main()
    told = capsys.readouterr().out
    assert "60 images, 60 persons, 2 models" in told
    assert "foldvote: precision" in told
    assert "self-confidence: precision" in told
    assert "cleanlab" in told
    rows.assign(label=np.where(np.arange(60) < 6, (rows["label"] + 1) % 6, rows["label"])).to_parquet(
        tmp_path / "truth"
    )
    monkeypatch.setattr("sys.argv", ["label_errors.py", "--results", str(tmp_path), "--truth", str(tmp_path / "truth")])
    module.main()
    assert "images with an error: 6; mean of 1" in capsys.readouterr().out


def test_planted_corrections_are_applied_and_make_that_many_errors(tmp_path, monkeypatch):
    rows, _, _ = simulated(persons=30)
    before = entries(rows)
    spared = before["profile"] < "000021"
    before.assign(label=rows["label"], corrected=spared).to_parquet(tmp_path / "manifest.parquet")
    files = [str(tmp_path / "manifest.parquet"), str(tmp_path / "planted.csv")]
    monkeypatch.setattr("sys.argv", ["plant_errors.py", *files, "--share", "0.1"])
    benchmark("plant_errors").main()
    config = config_for(tmp_path, corrections=files[1], corrections_certainty=["planted"])
    after, summary = apply_corrections(before, config)
    assert [row["field"] for row in summary["applied"]] == ["gender"] * 3 + ["age"] * 3 + ["shots"] * 3
    factors = list(HOME.factors)
    assert (after[factors] != before[factors]).sum().to_dict() == {"mask": 3 * 2, "gender": 3 * 7, "age": 3 * 7}
    assert not after.loc[spared, "corrected"].any()
