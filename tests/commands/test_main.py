"""The console command and the old spelling of its questions."""

from pathlib import Path

import pytest

from foldvote.commands.__main__ import main
from foldvote.commands.session import old_spelling
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


def test_unknown_words_end_with_the_usage(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in (["doctor", "--foo"], ["cure"], []):
        with pytest.raises(SystemExit) as ended:
            main(arguments)
        assert ended.value.code == 2
        assert "usage: foldvote" in capsys.readouterr().err
