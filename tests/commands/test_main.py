"""The console command and the old spelling of its questions."""

from collections.abc import Callable
from pathlib import Path

import pytest

from foldvote.commands.__main__ import main
from foldvote.commands.session import old_spelling
from foldvote.config.experiment import Config
from support.snakemake_run import CONFIG, write_config


@pytest.mark.parametrize(
    ("arguments", "asked"),
    [
        (["doctor"], ["doctor"]),
        (["--cores", "2", "doctor", "--configfile", "my.yaml"], ["doctor", "--configfile", "my.yaml"]),
        (["doctor", "--config", "a=1", "b=2", "--cores", "2"], ["doctor", "--config", "a=1", "b=2"]),
        (["next", "prepare", "--cores", "2"], ["next", "prepare", "--cores", "2"]),
        (["leaderboard", "a", "b", "--cores", "2"], ["leaderboard", "a", "b"]),
        (["--cores", "2", "leaderboard"], ["leaderboard"]),
        (["doctor", "my.yaml", "--cores", "2"], ["doctor", "my.yaml"]),
        (["--configfile", "my.yaml", "--", "leaderboard", "a"], ["leaderboard", "a", "--configfile", "my.yaml"]),
        (["--cores", "2", "--", "leaderboard", "a"], ["leaderboard", "a"]),
        (["--cores", "2", "all"], None),
        ([], None),
    ],
)
def test_a_question_put_as_a_target_becomes_the_command(arguments: list[str], asked: list[str] | None) -> None:
    assert old_spelling(arguments) == asked


def test_values_over_the_file_are_read_as_yaml(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    write_config(tmp_path)
    assert main(["leaderboard", "--configfile", "config.yaml", "--config", "results=else where"]) == 1
    assert capsys.readouterr().out.startswith("else where: holds no finished run")
    assert main(["leaderboard", "--configfile", "config.yaml", "--config", "folds={k: 1}"]) == 1
    assert "folds" in capsys.readouterr().out and CONFIG["folds"] == {"k": 2, "stratify": ["gender"]}


def test_a_value_without_a_key_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["leaderboard", "--config", "seed=1", "data_root"]) == 1
    told = "--config data_root: is not KEY=VALUE; write, for example, --config data_root=FOLDER\n"
    assert capsys.readouterr().out == told


def test_a_missing_file_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["leaderboard", "--configfile", "no.yaml"]) == 1
    assert capsys.readouterr().out == "no.yaml: no such file; give an existing one with --configfile\n"


def test_a_configuration_may_stand_without_its_option(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    write_config(tmp_path, results="mine")
    for words in (["config.yaml"], ["other", "config.yaml"], ["config.yaml", "--config", "seed=1"]):
        for command in ("leaderboard", "forecast"):
            assert main([command, *words]) == 1
            told = capsys.readouterr().out
            assert told.startswith(f"{'other' if 'other' in words else 'mine'}: holds no finished run"), told
    seen: list[tuple[str, object]] = []

    def doctor(_project: Path, file: str, load: Callable[[], Config], options: list[str]) -> tuple[str, int]:
        seen.append((file, options))
        return load().results, 0

    monkeypatch.setattr("foldvote.commands.doctor.run_doctor", doctor)
    assert main(["doctor", "config.yaml"]) == 0 and capsys.readouterr().out == "mine\n"
    assert seen == [("config.yaml", ["--configfile", "config.yaml"])]


@pytest.mark.parametrize(
    ("words", "asked"),
    [
        (["config.yaml"], ["--configfile", "config.yaml"]),
        (["prepare", "config.yaml", "--cores", "2"], ["prepare", "--cores", "2", "--configfile", "config.yaml"]),
        (["--", "config.yaml", "prepare"], ["prepare", "--configfile", "config.yaml"]),
        (
            ["mine/tune/best.yaml", "--configfile", "config.yaml"],
            ["mine/tune/best.yaml", "--configfile", "config.yaml"],
        ),
    ],
)
def test_next_takes_a_configuration_for_no_target(
    words: list[str], asked: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_config(tmp_path, results="mine")
    seen: list[list[str]] = []

    def plan(given: list[str], config: Config, *_: object) -> tuple[str, int]:
        assert config.results == "mine"
        seen.append(given)
        return "", 0

    monkeypatch.setattr("foldvote.commands.dry_run.describe_plan", plan)
    assert main(["next", *words]) == 0 and seen == [asked]


def test_unknown_words_end_with_the_usage(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in (["doctor", "--foo"], ["cure"], []):
        with pytest.raises(SystemExit) as ended:
            main(arguments)
        assert ended.value.code == 2
        assert "usage: foldvote" in capsys.readouterr().err
