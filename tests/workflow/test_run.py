"""The workflow as users run it: the real `snakemake` command, on a tiny demo, killed and continued."""

import json
import os
import re
import shutil
import signal
import subprocess
import time
from pathlib import Path

import nbformat
import pandas as pd
import pytest

from eda_run import NOTEBOOK, executed
from foldvote.io.files import sha256_file
from foldvote.runtime.locks import folder_lock
from support.data_folders import maskbase_folder, table_folder
from support.snakemake_run import CONFIG, command, jobs_that_ran, kill_group, planned, snakemake, wait_for, write_config

MEMBER = "results/train/model=tiny/fold={}/model.safetensors"
PREDICTIONS = [
    f"results/{part}/model=tiny/fold={fold}/predictions.parquet" for part in ("oof", "test") for fold in (0, 1)
]


def digests(folder: Path) -> dict[str, str]:
    """SHA-256 of every weights file and prediction."""
    files = [MEMBER.format(fold) for fold in (0, 1)] + PREDICTIONS
    return {name: sha256_file(folder / name) for name in files}


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a finished run; tests that change it work on a copy."""
    folder = tmp_path_factory.mktemp("한글 and spaces")
    write_config(folder)
    snakemake(folder)
    return folder


@pytest.fixture
def copy(finished: Path, tmp_path: Path) -> Path:
    """A copy of the finished run, with Snakemake's memory of it."""
    folder = tmp_path / "copy"
    shutil.copytree(finished, folder)
    return folder


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
    below = {"train": 2, "oof": 2, "tta": 2, "ensemble": 1, "submission": 1}
    elsewhere = {"state_dir": "elsewhere", "container": "docker://registry.example/foldvote"}
    together = {"gpus_per_member": 2, "cpu_processes": 4}
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
    assert planned(copy) == {"ensemble": 1, "submission": 1}


def test_next_says_what_would_run_and_why_and_doctor_answers_where_nothing_can(copy: Path) -> None:
    write_config(copy, models={"tiny": CONFIG["models"]["tiny"] | {"lr": 0.002}})
    printed = snakemake(copy, "--", "next")
    assert "8 jobs would run:" in printed
    assert "changed: lr: 0.001 -> 0.002" in printed
    assert "needs what will be made anew by: train" in printed
    assert "snakemake data_check" in printed.partition("Next:")[2]
    write_config(copy, folds={"k": 0})
    assert "84 images of 12 persons\n" in snakemake(copy, "--", "leaderboard", "results")
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


def test_one_fold_again_gives_the_same_bytes_and_touches_nothing_else(copy: Path) -> None:
    before = digests(copy)
    other = (copy / MEMBER.format(0)).stat().st_mtime_ns
    printed = snakemake(copy, "-R", MEMBER.format(1))
    assert jobs_that_ran(printed) == {"train": 1, "oof": 1, "tta": 1, "ensemble": 1, "submission": 1}
    assert digests(copy) == before
    assert (copy / MEMBER.format(0)).stat().st_mtime_ns == other
    assert "Nothing to be done" in snakemake(copy)


def test_f36_f50_snakemake_and_its_job_killed_in_mid_training_and_run_again_gives_the_same_bytes(copy: Path) -> None:
    before = digests(copy)
    resume = copy / "results/resume/model=tiny/fold=0"
    run = subprocess.Popen(command("-R", MEMBER.format(0)), cwd=copy, start_new_session=True, stderr=subprocess.DEVNULL)
    wait_for(lambda: len(list(resume.glob("step-*.ckpt"))) == 2, run)
    kill_group(run)
    assert list(resume.glob("step-*.ckpt"))
    printed = snakemake(copy)
    assert "goes on at" in printed
    assert digests(copy) == before


def test_f50_an_orphan_of_a_killed_snakemake_stops_and_the_next_run_goes_on(copy: Path) -> None:
    before = digests(copy)
    write_config(copy, models={"tiny": CONFIG["models"]["tiny"] | {"epochs": 40}})
    resume = copy / "results/resume/model=tiny/fold=0"
    run = subprocess.Popen(command(MEMBER.format(0)), cwd=copy, start_new_session=True, stderr=subprocess.DEVNULL)
    wait_for(lambda: len(list(resume.glob("step-*.ckpt"))) == 2, run)
    os.kill(run.pid, signal.SIGKILL)
    run.wait()
    printed = snakemake(copy, MEMBER.format(0))
    log = (copy / "results/logs/train/model=tiny/fold=0.log").read_text()
    assert "goes on at" in log, printed
    write_config(copy)
    snakemake(copy, MEMBER.format(0))
    assert sha256_file(copy / MEMBER.format(0)) == before[MEMBER.format(0)]


def test_f50_a_job_that_a_cluster_started_watches_its_own_snakemake_and_no_process_of_another_machine(
    copy: Path, tmp_path: Path
) -> None:
    models = {"tiny": CONFIG["models"]["tiny"] | {"epochs": 400}}
    write_config(copy, models=models, runtime=CONFIG["runtime"] | {"state_dir": str(tmp_path / "state")})
    resume = tmp_path / "state/resume/model=tiny/fold=0"
    stranger = subprocess.Popen(["sleep", "600"])  # has the number that Snakemake had on the machine it was typed on
    alone = ["--mode", "remote", "--target-jobs", "train:model=tiny,fold=0", "--allowed-rules", "train", "--force"]
    inner = subprocess.Popen(
        command(*alone, "--nolock", "--ignore-incomplete"),
        cwd=copy,
        env=os.environ | {"FOLDVOTE_MASTER": str(stranger.pid)},
        stdout=(copy / "inner.log").open("w"),
        stderr=subprocess.STDOUT,
    )
    wait_for(lambda: len(list(resume.glob("step-*.ckpt"))) == 2, inner)
    stranger.kill()
    stranger.wait()
    before = max(resume.glob("step-*.ckpt"))
    time.sleep(2)  # a job looks twice a second
    wait_for(lambda: max(resume.glob("step-*.ckpt")) > before, inner)
    inner.kill()
    inner.wait()
    printed = (copy / "inner.log").read_text()
    assert "threads:" not in printed.partition("rule train:")[2], "two machines would count its threads differently"
    with folder_lock(resume, lambda _: None, wait_seconds=60):
        assert "stopped as asked, state saved" in (copy / "results/logs/train/model=tiny/fold=0.log").read_text()


def test_f49_a_second_run_in_the_same_folder_is_refused_and_the_first_goes_on(copy: Path) -> None:
    before = digests(copy)
    first = subprocess.Popen(
        command("-R", MEMBER.format(0)), cwd=copy, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    wait_for((copy / "results/locks/run.lock").exists, first)
    wait_for(lambda: list((copy / "results/resume/model=tiny/fold=0").glob("*.ckpt")), first)
    second = snakemake(copy, "-R", MEMBER.format(1), code=None)
    assert "another run works here (process" in second
    printed, _ = first.communicate(timeout=300)
    assert first.returncode == 0, printed
    assert digests(copy) == before


def test_a_member_asks_for_its_gpus_and_threads_to_feed_them(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_config(copy, runtime={"gpus_per_member": 2})
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1,2,3")
    for offered, threads, gpus in ((4, 1, 2), (2, 2, 2), (1, 2, 1)):
        member = MEMBER.format(0)
        printed = snakemake(copy, "-n", "--resources", f"gpu={offered}", "-R", member, "--", member)
        job = printed.partition("rule train:")[2].partition("\n\n")[0]
        assert f"gpu={gpus}" in job and (f"threads: {threads}" in job) == (threads > 1), printed


def test_f52_a_fold_that_fails_lets_the_others_go_on_and_is_named(copy: Path) -> None:
    member = copy / MEMBER.format(0)
    content = bytearray(member.read_bytes())
    content[-1] ^= 1
    member.write_bytes(content)
    shutil.rmtree(copy / "results/oof")
    printed = snakemake(copy, "--keep-going", "results/leaderboard.csv", code=None)
    assert "is not the file that was trained" in printed
    assert not (copy / PREDICTIONS[0]).exists()
    assert (copy / PREDICTIONS[1]).is_file()
    assert "Error in rule oof" in printed


def test_f28_f29_f31_a_wrong_configuration_is_told_whole_before_anything_runs(tmp_path: Path) -> None:
    write_config(tmp_path, resutls="x", folds={"k": 0}, models={"tiny": {"net": "resnet1O"}})
    printed = snakemake(tmp_path, code=None)
    assert "config.yaml: resutls: unknown key; did you mean 'results'?" in printed
    assert "config.yaml: folds.k: " in printed
    assert "timm knows no net 'resnet1O'; did you mean 'resnet18'?" in printed
    assert "Traceback" not in printed
    (tmp_path / "config.yaml").write_text("seed: 010\nseed: 1\n")
    printed = snakemake(tmp_path, code=None)
    assert "config.yaml, line 1: seed: YAML reads 010 as an octal number" in printed
    assert "config.yaml, line 2: seed: the key stands twice" in printed
    assert not (tmp_path / "results").exists()


def test_f46_missing_weights_are_told_before_anything_runs(tmp_path: Path) -> None:
    write_config(tmp_path, models={"tiny": CONFIG["models"]["tiny"] | {"pretrained": "nowhere.safetensors"}})
    started = time.monotonic()
    printed = snakemake(tmp_path, code=None)
    assert "nowhere.safetensors" in printed
    assert time.monotonic() - started < 60
    assert not (tmp_path / "results/demo").exists()


def test_f17_files_that_are_not_there_are_told_in_a_line_each(tmp_path: Path) -> None:
    home_task(tmp_path)
    (tmp_path / "data/train/train.csv").unlink()
    printed = snakemake(tmp_path, "-n", "--config", "corrections=nowhere.csv", code=None)
    assert "the train table of data: data/train/train.csv is not there" in printed
    assert "corrections: data/nowhere.csv is not there" in printed
    printed = snakemake(tmp_path, "-n", "--config", "data_root=elsewhere", code=None)
    assert "data_root: elsewhere is not there; correct the path" in printed
    assert "Exception" not in printed


def test_gpus_share_the_cores_and_are_asked_for_by_number(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    for offered, threads, gpus in (("gpu=2", 1, 1), ("gpu=1", 2, 1), ("gpu=0", 2, 0)):
        printed = snakemake(copy, "-n", "-R", MEMBER.format(0), "--resources", offered)
        job = printed.partition("rule train:")[2].partition("rule ")[0]
        assert f"gpu={gpus}" in job
        assert f"threads: {threads}" in job or threads == 1


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


def home_task(folder: Path) -> Path:
    """A small folder of the home task with a prepared workflow."""
    root = maskbase_folder(folder / "data")
    data = {"layout": "maskbase"}
    folds = {"k": 2, "stratify": "label"}
    write_config(folder, data=data, data_root="data", answers=None, folds=folds, images={"min_side": 8})
    return root


@pytest.mark.parametrize("split", ["train", "test"])
def test_f51_an_added_photograph_redoes_what_it_must_and_no_more(tmp_path: Path, split: str) -> None:
    root = home_task(tmp_path)
    pixels = f"results/data/pixels/size=32x24/roi=none/{split}.arrow"
    snakemake(tmp_path, "prepare", pixels, "results/data/overlap.json")
    assert planned(tmp_path, "prepare", pixels, "results/data/overlap.json") == {}
    if split == "train":
        source = next((root / "train/images").glob("*/mask1.*")).parent
        person = source.with_name("000009_female_Asian_23")
        shutil.copytree(source, person)
        with (root / "train/train.csv").open("a") as table:
            table.write("000009,female,Asian,23,000009_female_Asian_23\n")
        expected = {"manifest": 1, "folds": 1, "pixels": 1}
    else:
        source = next((root / "eval/images").glob("*.jpg"))
        shutil.copy(source, source.with_name("f" * 40 + ".jpg"))
        with (root / "eval/info.csv").open("a") as table:
            table.write("f" * 40 + ".jpg,0\n")
        expected = {"manifest": 1, "pixels": 1}
    assert planned(tmp_path, "prepare", pixels) == expected


def test_f15_an_image_that_changed_since_the_manifest_stops_the_packing_and_is_named(tmp_path: Path) -> None:
    root = home_task(tmp_path)
    snakemake(tmp_path, "results/data/manifest/split=train/manifest.parquet")
    image = next((root / "train/images").glob("*/normal.*"))
    content = bytearray(image.read_bytes())
    content[-3] ^= 1
    image.write_bytes(content)
    printed = snakemake(tmp_path, "prepare", code=None)
    assert f"image {image.parent.name}/{image.name}" in printed
    assert "has changed since the manifest was made" in printed
    assert not (tmp_path / "results/data/pixels/size=32x24/roi=none/train.arrow").exists()


def test_f01_a_bad_photograph_is_refused_in_one_line_and_quarantined_on_request(tmp_path: Path) -> None:
    root = home_task(tmp_path)
    image = next((root / "train/images").glob("*/normal.*"))
    image.write_bytes(b"")
    manifest = "results/data/manifest/split=train/manifest.parquet"
    printed = snakemake(tmp_path, manifest, code=None)
    assert f"{image.relative_to(tmp_path)}: empty" in printed
    assert "images.on_bad: quarantine" in printed
    assert "Traceback" not in printed
    assert not (tmp_path / manifest).exists()
    snakemake(tmp_path, manifest, "--config", "images={on_bad: quarantine, min_side: 8}")
    assert pd.read_parquet(tmp_path / "results/data/quarantine")["reason"].tolist() == ["empty"]


def test_a_table_of_any_images_with_groups_is_split_and_packed(tmp_path: Path) -> None:
    rows = [(f"images/{group}_{shot}.jpg", f"person {group}", "ab"[group % 2]) for group in range(8) for shot in "xy"]
    table_folder(tmp_path / "data", rows)
    data = {"layout": "table", "table": "table.csv"}
    write_config(tmp_path, data=data, data_root="data", answers=None, folds={"k": 2}, images={"min_side": 8})
    snakemake(tmp_path, "prepare")
    folds = pd.read_parquet(tmp_path / "results/folds/folds.parquet")
    assert folds.groupby("group")["fold"].nunique().eq(1).all()
    assert len(folds) == 16
