"""The command `foldvote forecast`: its table, JSON, sizes and exit codes."""

import json
import shutil
from pathlib import Path

import pytest

from foldvote.commands.__main__ import main
from foldvote.splits.reserve import RESERVE
from support.finished_run import finished_run, write_test_manifest
from support.member_predictions import MEAN, TWO
from support.snakemake_run import write_config


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("forecast") / "results"
    finished_run(root, models=TWO)
    return root


def ask(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> tuple[str, int]:
    code = main(["forecast", *map(str, arguments)])
    return capsys.readouterr().out, code


def test_the_table_fits_a_terminal_and_says_what_it_is_of(results: Path, capsys: pytest.CaptureFixture[str]) -> None:
    told, code = ask(capsys, results, "--persons", 100)
    assert code == 0
    lines = told.splitlines()
    sizes = "macro-F1 of a test set of 100 persons (--persons): 50 on the public board, 50 on the private one"
    assert lines[0] == sizes
    assert lines[1] == "drawn from 24 persons (24 images) out of fold"
    assert "left out: vote mean+offsets: fits what single members may not share with their mean" in lines
    assert "single members" in told and "best pair: " in told and " *" in told
    assert max(map(len, lines)) <= 100


def test_json_holds_everything_and_the_seed_decides(results: Path, capsys: pytest.CaptureFixture[str]) -> None:
    told, code = ask(capsys, results, "--json", "--public", 0.3, "--persons", 50, "--score", "log_loss")
    found = json.loads(told)
    assert code == 0
    assert (found["public_groups"], found["private_groups"], found["score"]) == (15, 35, "log_loss")
    assert (found["base"], found["known_groups"], found["like_test"]) == ("oof", 24, False)
    assert [len(leads) for leads in found["leads"].values()] == [len(found["rows"]) - 1] * len(found["rows"])
    again = ask(capsys, results, "--json", "--public", 15, "--persons", 50, "--score", "log_loss")[0]
    assert again == told
    assert ask(capsys, results, "--json", "--public", 15, "--persons", 50, "--seed", 1)[0] != told


def test_a_reserve_measures_the_means(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    finished_run(tmp_path, models=TWO, reserve=18)
    told, code = ask(capsys, tmp_path)
    assert code == 0
    assert "drawn from 18 persons (18 images) of the reserve, predicted by the mean of all members" in told
    assert "single members" not in told


@pytest.mark.parametrize("reserve", [0, 18])
def test_persons_are_groups_of_the_split(tmp_path: Path, capsys: pytest.CaptureFixture[str], reserve: int) -> None:
    run = finished_run(tmp_path, models=TWO, reserve=reserve, paired=True)
    drawn = run.folds[run.folds["fold"] == RESERVE] if reserve else run.folds
    write_test_manifest(tmp_path, 60, None)
    found = json.loads(ask(capsys, tmp_path, "--json")[0])
    assert found["known_groups"] == drawn["group"].nunique() == len(drawn) / 2
    assert found["persons_from"] == "60 test images, 2 per person"
    assert found["public_groups"] + found["private_groups"] == 30


@pytest.mark.parametrize(
    ("images", "groups", "persons", "source"),
    [
        (60, 20, 20, "of the test table"),
        (60, None, 60, "60 test images, 1 per person"),
        (0, None, 24, "as many as here"),
    ],
)
def test_the_size_of_the_test_set(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], images: int, groups: int | None, persons: int, source: str
) -> None:
    finished_run(tmp_path, models=TWO)
    if images:
        write_test_manifest(tmp_path, images, groups)
    found = json.loads(ask(capsys, tmp_path, "--json")[0])
    assert found["public_groups"] + found["private_groups"] == persons
    assert found["persons_from"] == source


def test_several_runs_stand_on_one_board(results: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    finished_run(tmp_path / "other")
    found = json.loads(ask(capsys, results, tmp_path / "other", "--json")[0])
    assert {row["row"].partition(": ")[0] for row in found["rows"]} == {str(results), str(tmp_path / "other")}
    assert len(found["submitted"]) == 2


@pytest.mark.parametrize(("metric", "score"), [("accuracy", "accuracy"), ("roc_auc", "macro_f1")])
def test_the_score_is_the_main_metric_where_boards_can_be_simulated_in_it(
    results: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], metric: str, score: str
) -> None:
    folder = tmp_path / "results"
    shutil.copytree(results, folder)
    path = folder / "ensemble/metrics.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"metric": metric}))
    assert json.loads(ask(capsys, folder, "--json")[0])["score"] == score
    assert json.loads(ask(capsys, folder, results, "--json")[0])["score"] == "macro_f1"


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["--public", "1.5"], "--public 1.5: give a share above 0 and below 1, such as 0.5, or a number of persons"),
        (["--public", "half"], "--public half: give a share"),
        (["--public", "nan"], "--public nan: give a share"),
        (["--public", "-1"], None),
        (["--public", "0", "--persons", "9"], "--public 0: give a share"),
        (["--public", "9", "--persons", "9"], "from 1 to 8, as the test set has 9"),
        (["--persons", "1"], "--persons 1: a public and a private board need two persons or more"),
        (["--score", "accurac"], "no such score; take one of macro_f1, accuracy, log_loss, brier, ece; did you mean"),
        (["--score", "roc_auc"], "--score roc_auc: boards cannot be simulated in this metric; take one of macro_f1"),
    ],
)
def test_wrong_options_are_one_line(
    results: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], line: str | None
) -> None:
    if line is None:
        told, code = ask(capsys, results, f"{arguments[0]}={arguments[1]}")
        line = "--public -1: give a share"
    else:
        told, code = ask(capsys, results, *arguments)
    assert code == 1
    assert line in told and told.count("\n") == 1


def test_without_folders_the_results_of_the_configuration_are_read(
    results: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    write_config(tmp_path)
    told, code = ask(capsys, "--configfile", "config.yaml", "--config", f"results={results}")
    assert code == 0 and "drawn from 24 persons" in told
    told, code = ask(capsys, "--configfile", "no.yaml")
    assert code == 1 and told.count("\n") == 1


def test_a_folder_without_a_run_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    told, code = ask(capsys, tmp_path)
    assert code == 1
    assert told.startswith(f"{tmp_path}: holds no finished run") and told.count("\n") == 1


def test_rows_that_are_the_same_are_told_as_such(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    finished_run(tmp_path, settings=MEAN)
    told, code = ask(capsys, tmp_path)
    assert code == 0
    (line,) = [line for line in told.splitlines() if line.startswith("model lite0") and line.count("50%")]
    assert line.split()[2:] == ["50%"] * 5
