"""`foldvote next`: a dry run in plain words."""

import json
from pathlib import Path

import pytest

from foldvote.commands import dry_run
from foldvote.commands.dry_run import Job, _options, _targets, describe_plan, in_words, next_commands
from foldvote.config.experiment import Config
from support.data_folders import config_for, maskbase_folder, put

SOFTWARE = "Software environment definition has changed since last execution"
RECIPE = {"lr": 0.001, "mix": [], "schedule": {"name": "cosine", "floor": 0.01}, "net": "resnet18"}


def job(rule: str, wildcards: str, output: str, reason: str) -> Job:
    """A job of a dry run, from texts."""
    known = dict(part.split("=") for part in wildcards.split(", ") if part)
    return Job(rule, known, tuple(output.split(", ")), reason)


def params(before: str, now: str) -> str:
    union = "Union of exclusive params before and now across all output"
    return f"Params have changed since last execution: {union}: before: {before} now: {now} "


@pytest.fixture
def config(tmp_path: Path) -> Config:
    return config_for(maskbase_folder(tmp_path / "data"))


def test_jobs_stand_by_rule_with_their_wildcards_and_reasons() -> None:
    jobs = [
        job("train", "model=small, fold=1", "t1, t1.json", "Missing output files: t1, t1.json"),
        job("train", "model=small, fold=0", "t0", "Updated input files: x.arrow; Forced execution"),
        job("oof", "model=small, fold=0", "o0", "Input files updated by another job: t0, t1"),
    ]
    assert in_words(jobs).splitlines() == [
        "3 jobs would run:",
        "  train     2  model=small  fold=0, 1",
        "               missing: t1 and 1 more",
        "               newer than the output made from it: x.arrow",
        "               asked for by -R, -f or -F",
        "  oof       1  model=small  fold=0",
        "               its input will be made again by: train",
    ]


@pytest.mark.parametrize(
    ("before", "now", "words"),
    [
        (RECIPE, RECIPE | {"lr": 0.002}, "changed: lr: 0.001 -> 0.002"),
        (RECIPE, RECIPE | {"schedule": {"name": "cosine", "floor": 0.1}}, "changed: schedule.floor: 0.01 -> 0.1"),
        (RECIPE, RECIPE | {"net": "마스크 <b>"}, "changed: net: resnet18 -> 마스크 <b>"),
        (RECIPE, {name: RECIPE[name] for name in ("lr", "mix", "net")}, "schedule.floor: 0.01 -> (not there)"),
        (42, 7, "changed: 42 -> 7"),
        ("0123456789abcdef", "fedcba9876543210", "changed: its code"),
        ("0" * 64, "1" * 64, "changed: the image files"),
    ],
)
def test_f51_a_changed_setting_is_named_with_its_value_before_and_now(before: object, now: object, words: str) -> None:
    texts = [
        repr(json.dumps(value, ensure_ascii=False) if isinstance(value, dict) else value) for value in (before, now)
    ]
    assert words in in_words([job("train", "", "t", params(*texts))])


def test_changes_that_cannot_be_told_apart_are_still_changes() -> None:
    for before, now in (("1,2", "3,4"), ("<nothing exclusive>", "5"), ("<Object at 0x1>", "5")):
        assert "changed: settings of this rule" in in_words([job("x", "", "t", params(before, now))])
    reason = params("'0123456789abcdef',3", "'fedcba9876543210',4")
    both = [job("x", "", "t", f"{reason}; {SOFTWARE}")]
    assert "changed: its code" in in_words(both)
    assert "changed: 3 -> 4" in in_words(both)
    assert "its environment has changed" in in_words(both)


def test_nothing_to_do_is_said() -> None:
    assert in_words([]).startswith("Nothing would run")


def test_the_next_commands_are_three_keep_the_options_and_fit_what_is_there(config: Config) -> None:
    options = ["--cores", "2", "--configfile", "my file.yaml"]
    train = [job("train", "model=small, fold=0", "t", "Missing output files: t")]
    commands = [command for command, _ in next_commands(train, config, options)]
    kept = "--cores 2 --configfile 'my file.yaml'"
    assert commands == [f"snakemake data_check {kept}", f"snakemake augment_preview {kept}", f"snakemake {kept}"]
    put(Path(config.results) / "data_check.html", b"")
    put(Path(config.results) / "preview/model=small.png", b"")
    assert next_commands(train, config, options)[-1][0] == f"snakemake {kept}"
    done = [command for command, _ in next_commands([], config, options)]
    assert len(done) == 3
    assert done[0] == f"snakemake report {kept}"
    put(Path(config.results) / "report.html", b"")
    done = [command for command, _ in next_commands([], config, options)]
    assert done[0].endswith(f"-R {config.results}/train/model=small/fold=0/model.safetensors")


def test_f188_the_targets_that_were_asked_for_are_repeated(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    jobs = [job("folds", "", "f", "Missing output files: f")]
    asked: list[list[str]] = []
    monkeypatch.setattr(dry_run, "planned_jobs", lambda arguments: asked.append(arguments) or jobs)
    text, code = describe_plan(["prepare", "--configfile", "my.yaml"], config, None, Path("Snakefile"))
    assert code == 0 and "  snakemake prepare --cores all --configfile my.yaml " in text
    assert asked == [["prepare", "--configfile", "my.yaml", "--snakefile", "Snakefile"]]


def test_a_refused_dry_run_leads_to_the_doctor_of_this_configuration(
    config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dry_run, "planned_jobs", lambda _: None)
    text, code = describe_plan(["foo", "--configfile", "my.yaml", "--config", "a=1"], config, "2", Path("Snakefile"))
    assert code == 1 and text.endswith("are right: foldvote doctor --configfile my.yaml --config a=1")


def test_targets_are_no_options() -> None:
    assert _targets(["prepare", "--cores", "2", "--", "all"]) == ["prepare", "all"]
    assert _options(["prepare", "--cores", "2", "--", "all"]) == ["--cores", "2"]
    assert _options([]) == _options(["prepare"]) == []
