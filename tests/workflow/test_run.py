"""The workflow as users run it: the real `snakemake` command on a tiny demo; its files, pages, notebook and plans."""

import json
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import nbformat
import pandas as pd
import pytest

from eda_run import NOTEBOOK, executed
from foldvote.io.files import sha256_file
from support.snakemake_run import (
    CONFIG,
    MEMBER,
    ROOT,
    jobs_that_ran,
    planned,
    snakemake,
    write_config,
)


def test_f53_every_file_of_the_contract_is_there_in_a_folder_with_spaces_and_korean_letters(finished: Path) -> None:
    results = finished / "results"
    for name in (
        "data/manifest/split=train/manifest.parquet",
        "data/manifest/split=test/manifest.parquet",
        "data/quarantine/split=train/quarantine.parquet",
        "data/classes.json",
        "data/overlap.json",
        "data/pixels/size=32x24/roi=none/train.arrow",
        "data/pixels/size=32x24/roi=none/test.arrow",
        "folds/folds.parquet",
        "folds/certificate.json",
        "train/model=tiny/fold=1/model.safetensors",
        "train/model=tiny/fold=1/last.safetensors",
        "train/model=tiny/fold=1/model.json",
        "train/model=tiny/fold=1/history.parquet",
        "ensemble/oof.parquet",
        "ensemble/test.parquet",
        "ensemble/metrics.json",
        "ensemble/weights.json",
        "ensemble/votes.json",
        "ensemble/slices.csv",
        "ensemble/reliability.csv",
        "ensemble/label_issues.parquet",
        "ensemble/review.csv",
        "ensemble/coverage.json",
        "ensemble/coverage.csv",
        "leaderboard.csv",
        "submission.csv",
    ):
        assert (results / name).is_file(), name
    assert not list((results / "resume").rglob("*.ckpt"))
    oof = pd.read_parquet(results / "oof")
    manifest = pd.read_parquet(results / "data/manifest")
    assert set(oof["fold"].astype(int)) == {0, 1}
    assert oof["image_id"].nunique() == (manifest["split"] == "train").sum() == 84
    assert len(pd.read_csv(results / "submission.csv")) == (manifest["split"] == "test").sum() == 14
    board = pd.read_csv(results / "leaderboard.csv")
    kinds = board["kind"].tolist()
    assert [kind for kind in kinds if kind != "vote"] == ["ensemble", "model", "member", "member"]
    assert set(board["model"][board["kind"] == "vote"]) > {"mean", "greedy", "mean+offsets"}
    certificate = json.loads((results / "folds/certificate.json").read_text())
    assert all(not any(fold["shared"].values()) for fold in certificate["folds"])


def test_the_second_run_does_nothing_and_says_so(finished: Path) -> None:
    assert "Nothing to be done" in snakemake(finished)


def test_f51_only_what_a_change_touches_is_planned(copy: Path) -> None:
    below = {"train": 2, "predict_member": 2, "ensemble": 1, "review": 1, "submission": 1}
    elsewhere = {"state_dir": "elsewhere", "container": "docker://registry.example/foldvote"}
    together = {"members_per_gpu": 2, "cpu_processes": 4, "member_threads": 1}
    write_config(copy, runtime={"workers": 1, "predict_batch": 17} | together | elsewhere)
    assert planned(copy) == {}
    recipe = CONFIG["models"]["tiny"]
    write_config(copy, models={"tiny": dict(reversed(recipe.items()))})
    assert planned(copy) == {}
    write_config(copy, models={"tiny": recipe | {"lr": 0.002}})
    assert planned(copy) == below
    write_config(copy, predict={"views": ["identity"]})
    assert planned(copy) == {rule: number for rule, number in below.items() if rule != "train"}
    write_config(copy, models=CONFIG["models"] | {"second": recipe})
    assert planned(copy) == below
    write_config(copy, submission={"answer": "name"})
    assert planned(copy) == {"ensemble": 1, "review": 1, "submission": 1}
    write_config(copy, vote={"coverage": 0.8, "covers": "group"})
    assert planned(copy) == {"review": 1}
    write_config(copy)
    tests = {"manifest": 1, "pixels": 1, "overlap": 1, "predict_member": 2}
    again = planned(copy, "-R", "results/data/manifest/split=test/manifest.parquet")
    assert again == tests | {"ensemble": 1, "review": 1, "submission": 1}  # test images retrain nothing


def test_next_says_what_would_run_and_why_and_doctor_answers_where_nothing_can(copy: Path) -> None:
    write_config(copy, models={"tiny": CONFIG["models"]["tiny"] | {"lr": 0.002}})
    printed = snakemake(copy, "--", "next")
    assert "7 jobs would run:" in printed
    assert "changed: lr: 0.001 -> 0.002" in printed
    assert "its input will be made again by: train" in printed
    assert "snakemake data_check" in printed.partition("Next:")[2]
    write_config(copy, folds={"k": 0})
    assert "84 images of 11 persons\n" in snakemake(copy, "--", "leaderboard", "results")
    printed = snakemake(copy, "--", "doctor", code=1)
    assert "error   config" in printed
    assert "folds.k" in printed


def test_the_two_pages_train_nothing_and_rerun_nothing(copy: Path) -> None:
    chosen = json.loads((copy / "results/ensemble/metrics.json").read_text(encoding="utf-8"))["chosen"]
    row = f"results/submission/vote={chosen}.csv"
    printed = snakemake(copy, "--", "data_check", "report", "draft_corrections", row)
    pages = {"light": 2, "preview": 1, "data_check": 1, "attention": 1, "frontier": 1, "report": 1}
    assert jobs_that_ran(printed) == pages | {"row": 1, "row_submission": 1, "draft_corrections": 1}
    assert (copy / row).read_bytes() == (copy / "results/submission.csv").read_bytes()
    drafted = pd.read_csv(copy / "results/corrections_draft.csv", dtype=str)
    assert list(drafted) == ["id", "field", "from", "to", "source", "certainty"]
    assert set(drafted["certainty"]) <= {"suspected"}
    page = (copy / "results/data_check.html").read_text(encoding="utf-8")
    assert "84 training images of 12 persons" in page
    assert page.count('class="subject"') == 12
    assert 'src="data:image/webp;base64,' in page  # the augmented batch
    counted = pd.read_csv(copy / "results/data/counts.csv")
    assert counted[counted["kind"] == "mask"]["images"].tolist() == [60, 12, 12]
    board = pd.read_csv(copy / "results/leaderboard.csv", dtype=str)
    report = (copy / "results/report.html").read_text(encoding="utf-8")
    assert f"Macro-F1 {float(board['macro_f1'][0]):.4f} out of fold" in report
    assert all(f'data-value="{float(score)}"' in report for score in [*board["macro_f1"], *board["log_loss"]])
    assert len(pd.read_csv(copy / "results/report/losses.csv")) == 84
    seen = pd.read_parquet(copy / "results/attention/attention.parquet")
    assert set(seen["model"]) == {"tiny"} and seen["image_id"].nunique() > 12
    assert all(max(heat) in (0, 255) and len(heat) == 8 * 6 for heat in seen["heat"])
    assert planned(copy) == {}
    printed = snakemake(copy, "--", "next")
    assert "snakemake data_check" not in printed and "snakemake report" not in printed


def test_new_images_are_predicted_by_one_job_that_makes_nothing_else_anew(copy: Path) -> None:
    known = pd.read_parquet(copy / "results/ensemble/test.parquet").set_index("image_id")
    (copy / "새 사진/안").mkdir(parents=True)
    for number, name in enumerate(known.index[:5]):
        shutil.copy(copy / "results/demo/eval/images" / name, copy / "새 사진" / ("" if number else "안") / name)
    (copy / "새 사진/bad.jpg").write_bytes(b"no image")
    before = {path: sha256_file(path) for path in (copy / "results").rglob("*.*") if "lock" not in path.name}
    printed = snakemake(copy, "predict", "--config", "new=새 사진")
    assert jobs_that_ran(printed) == {"predict": 1}
    assert "새 사진: 6 images: 5 predicted now, 0 known from before, 1 bad (results/new/bad.csv)" in printed
    table = pd.read_csv(copy / "results/new/predictions.csv", index_col="image_id")
    assert sorted(name.split("/")[-1] for name in table.index) == sorted(known.index[:5])
    expected = known.loc[[name.split("/")[-1] for name in table.index]]
    assert table["class"].tolist() == expected["prediction_name"].tolist()
    columns = [name for name in known if name.startswith("p_")]
    assert abs(table[columns].to_numpy() - expected[columns].to_numpy()).max() < 2e-6
    assert pd.read_csv(copy / "results/new/bad.csv")["path"].tolist() == ["새 사진/bad.jpg"]
    assert "Nothing to be done" in snakemake(copy, "predict", "--config", "new=./새 사진/")
    write_config(copy, models={"tiny": CONFIG["models"]["tiny"] | {"lr": 0.002}}, new="새 사진")
    shutil.copy(copy / "results/demo/eval/images" / known.index[5], copy / "새 사진")
    printed = snakemake(copy, "predict")
    assert jobs_that_ran(printed) == {"predict": 1}
    assert "7 images: 1 predicted now, 5 known from before, 1 bad" in printed
    assert {path: sha256_file(path) for path in before} == before
    write_config(copy)
    assert planned(copy) == {}
    printed = snakemake(copy, "predict", code=1)
    assert printed.strip().splitlines()[-1].startswith("new: missing: name a folder of images")


def test_a_bundle_answers_as_the_run_without_its_library(copy: Path) -> None:
    printed = snakemake(copy, "bundle")
    assert jobs_that_ran(printed) == {"bundle": 1}
    assert "results/bundle: oof: " in printed and "test.parquet: 14 images" in printed
    shutil.unpack_archive(copy / "results/bundle.zip", copy / "elsewhere")
    images, sample = copy / "results/demo/eval/images", copy / "results/demo/eval/info.csv"
    words = [sys.executable, copy / "elsewhere/predict.py", images, copy / "mine.csv", "--sample", sample]
    subprocess.run(words, check=True, env={"PATH": os.environ["PATH"]})
    assert (copy / "mine.csv").read_bytes() == (copy / "results/submission.csv").read_bytes()
    assert "Nothing to be done" in snakemake(copy, "bundle")
    write_config(copy, bundle={"folds": [0]})
    assert planned(copy) == {} and planned(copy, "bundle") == {"bundle": 1}
    write_config(copy, vote=CONFIG.get("vote", {}) | {"use": "lightgbm", "kinds": ["lightgbm"]})
    printed = snakemake(copy, "bundle", code=1)
    assert printed.strip().splitlines()[-1] == "bundle: vote.use: lightgbm cannot be exported; choose another method"


def test_a_budget_submits_what_fits_and_nothing_is_trained_or_predicted_for_it(copy: Path) -> None:
    whole = pd.read_csv(copy / "results/submission.csv")
    write_config(copy, vote={"budget": {"megabytes": 0.0001}})
    printed = snakemake(copy, code=None)
    assert "vote.budget: nothing fits megabytes: 0.0001; the cheapest is tiny with one fold" in printed
    size = (copy / MEMBER.format(0)).stat().st_size / 1e6
    write_config(copy, vote={"budget": {"megabytes": 1.5 * size, "ms_per_image": 60_000}})
    assert planned(copy) == {"frontier": 1, "submission": 1}
    printed = snakemake(copy)
    assert jobs_that_ran(printed) == {"frontier": 1, "submission": 1}
    assert "submission within the budget: tiny, view" in printed
    chosen = json.loads((copy / "results/ensemble/budget.json").read_text())
    assert (chosen["models"], len(chosen["folds"]), chosen["members_scored"]) == (["tiny"], 1, 1)
    table = pd.read_csv(copy / "results/ensemble/frontier.csv")
    assert table["budget"].sum() == table["cheapest"].sum() == 1
    votes = pd.read_parquet(copy / "results/ensemble/budget.parquet")
    submitted = pd.read_csv(copy / "results/submission.csv")
    assert list(submitted) == list(whole) and submitted["ImageID"].tolist() == whole["ImageID"].tolist()
    codes = dict(zip(votes["image_id"], votes["prediction"], strict=True))
    assert submitted["ans"].tolist() == [codes[name] for name in submitted["ImageID"]]
    write_config(copy)
    snakemake(copy)
    pd.testing.assert_frame_equal(pd.read_csv(copy / "results/submission.csv"), whole)


def test_the_notebook_runs_on_a_finished_run_and_its_three_tools_agree(copy: Path) -> None:
    (copy / "docs").mkdir()
    (copy / "workflow").symlink_to(ROOT / "workflow")  # the library, which the last section uses
    cells = [cell for cell in executed(copy / "docs").cells if cell.cell_type == "code"]
    texts = {}
    for cell in cells:
        data = [output.get("data", {}).get("text/plain") or output.get("text", "") for output in cell.outputs]
        texts[cell.source] = "\n".join(data)
    by_duckdb, by_polars = (
        next(text for source, text in texts.items() if tool in source) for tool in ("as guess", "pl.scan")
    )
    assert by_duckdb == by_polars
    assert "tiny" in by_duckdb and "42" in by_duckdb
    assert any("{'bytes': 0, 'groups': 0, 'images': 0, 'profiles': 0}" in text for text in texts.values())


def test_the_notebook_is_kept_with_what_it_shows_and_without_paths_of_a_machine() -> None:
    cells = [cell for cell in nbformat.read(NOTEBOOK, as_version=4).cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    outputs = [output for cell in cells for output in cell.outputs]
    assert len(outputs) >= len(cells) - 1  # the first cell imports
    assert not [output for output in outputs if output.output_type == "error" or output.get("name") == "stderr"]
    assert not re.search(
        r"(?<![\w<.])/\w+/\w", json.dumps([out.get("data", {}).get("text/plain", out.get("text")) for out in outputs])
    )


def test_f54_touched_files_and_a_clock_that_runs_ahead_rerun_nothing(copy: Path) -> None:
    ahead = time.time() + 3600
    for path in [*(copy / "results/demo").rglob("*.csv"), *(copy / "results/demo").rglob("*.jpg")]:
        os.utime(path, (ahead, ahead))
    assert planned(copy) == {}


def test_a_member_asks_for_its_gpus_and_threads_to_feed_them(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_config(copy, runtime={"gpus_per_member": 2})
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1,2,3")
    for offered, threads, gpus in ((4, 1, 2), (2, 2, 2), (1, 2, 1)):
        member = MEMBER.format(0)
        printed = snakemake(copy, "-n", "--resources", f"gpu={offered}", "-R", member, "--", member)
        job = printed.partition("rule train:")[2].partition("\n\n")[0]
        assert f"gpu={gpus}" in job and (f"threads: {threads}" in job) == (threads > 1), printed


def test_gpus_share_the_cores_and_are_asked_for_by_number(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    small = {"members_per_gpu": 2, "member_threads": 1}
    for runtime, offered, threads, gpus in (
        ({}, "gpu=2", 1, 1),
        ({}, "gpu=1", 2, 1),
        ({}, "gpu=0", 2, 0),
        (small, "gpu=4", 1, 1),
        (small, "gpu=1", 2, 1),
        (small, "gpu=0", 1, 0),
    ):
        write_config(copy, runtime=runtime)
        printed = snakemake(copy, "-n", "-R", MEMBER.format(0), "--resources", offered)
        job = printed.partition("rule train:")[2].partition("rule ")[0]
        assert f"gpu={gpus}" in job
        assert (f"threads: {threads}" in job) == (threads > 1), printed


def test_a_second_round_and_models_of_some_factors_run_to_a_submission(tmp_path: Path) -> None:
    tiny = CONFIG["models"]["tiny"] | {"epochs": 1, "warmup_epochs": 0}
    models = {
        "first": tiny,
        "second": {"base": "first", "pseudo": {"models": ["first"], "confidence": 0.01}},
        "masks": {"base": "first", "factors": ["mask"]},
        "people": {"base": "first", "factors": ["gender", "age"], "heads": "factored"},
    }
    write_config(tmp_path, models=models, folds={"method": "holdout", "stratify": ["gender"]})
    snakemake(tmp_path)
    log = (tmp_path / "results/logs/train/model=second/fold=0.log").read_text(encoding="utf-8")
    assert "(14 of them test images)" in log
    weights = json.loads((tmp_path / "results/ensemble/weights.json").read_text())
    candidate_models = {name.partition("/")[0] for name in weights["candidates"]}
    assert candidate_models == {"first", "masks*people", "second"}
    assert len(pd.read_csv(tmp_path / "results/submission.csv")) == 14
    # A changed first round is a reason to train the second one anew.
    models["first"] = tiny | {"lr": 0.002}
    models["masks"] = models["masks"] | {"lr": 0.001}
    models["people"] = models["people"] | {"lr": 0.001}
    models["second"] = models["second"] | {"lr": 0.001}
    write_config(tmp_path, models=models, folds={"method": "holdout", "stratify": ["gender"]})
    assert planned(tmp_path)["train"] == 2


def test_predictions_of_another_run_join_the_vote_and_train_nothing(copy: Path) -> None:
    for part in ("oof", "test"):
        shutil.copy(copy / f"results/ensemble/{part}.parquet", copy / f"friend-{part}.parquet")
    guests = {"friend": {"oof": "friend-oof.parquet", "test": "friend-test.csv"}}
    write_config(copy, guests=guests)
    assert "guests.friend.test: friend-test.csv is not there; correct the path" in snakemake(copy, "-n", code=None)
    table = pd.read_parquet(copy / "friend-test.parquet")
    table.drop(columns=table.columns[3]).to_csv(copy / "friend-test.csv", index=False)
    printed = snakemake(copy, code=None)
    assert "guests.friend: friend-test.csv: 1 of 18 classes have no column: p_wear-male-under30" in printed
    table.iloc[1:].to_csv(copy / "friend-test.csv", index=False)
    printed = snakemake(copy, code=None)
    assert "guests.friend: friend-test.csv: 1 ids of the test images are missing: " in printed
    table.to_csv(copy / "friend-test.csv", index=False)
    rows = ["results/submission/model=friend.csv", "results/submission/vote=mean.csv"]
    planned_jobs = planned(copy, "all", *rows)
    assert planned_jobs == {**{"ensemble": 1, "guests": 1, "review": 1, "row": 2, "row_submission": 2, "submission": 1}}
    printed = snakemake(copy, "all", *rows)
    assert "guests.friend: its folds are those of this run" in printed
    assert "friend (guest)" in printed
    board = pd.read_csv(copy / "results/leaderboard.csv").set_index(["kind", "model"])
    assert board.loc[("guest", "friend"), "images"] == board.loc[("model", "tiny"), "images"]
    assert json.loads((copy / "results/ensemble/weights.json").read_text())["guests"] == ["friend"]
    assert all(len(pd.read_csv(copy / row)) == 14 for row in rows)
    assert planned(copy) == {}
    snakemake(copy, "report")
