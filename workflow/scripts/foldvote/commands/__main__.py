"""The console command `foldvote`: questions about a run. What makes files is a Snakemake target."""

import argparse
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import yaml

from foldvote import __version__
from foldvote.commands.session import add_configuration, configuration_options, is_configuration
from foldvote.config.experiment import Config, load_config
from foldvote.config.yaml_file import load_yaml
from foldvote.errors import UserError

PROJECT = Path(__file__).resolve().parents[4]  # the folder with pyproject.toml and config/
_FILE = "the configuration, as --configfile gives it; default: that of the demo"
_FOLDERS = "results folders, or configurations (FILE.yaml) that name them; none: that of --configfile"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command.

    Args:
        arguments: those after `foldvote`; None takes them from the command line.

    Returns:
        The exit code: 0 if all is well, 1 if something is wrong, 2 for a wrong command line.
    """
    parser = _parser()
    asked, rest = parser.parse_known_args(arguments)
    if rest and asked.command != "next":
        parser.error(f"unknown arguments: {' '.join(rest)}")
    if getattr(asked, "file", None) is not None:
        asked.configfile = [asked.file]
    try:
        text, code = asked.run(asked, rest)
    except UserError as error:
        text, code = str(error), 1
    print(text, file=sys.stderr if code == 2 else sys.stdout)
    return int(code)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("foldvote", description=__doc__, allow_abbrev=False)
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(title="commands", dest="command", required=True)

    doctor = commands.add_parser("doctor", help="is everything ready for a run? machine, configuration and data")
    doctor.add_argument("file", nargs="?", help=_FILE)
    add_configuration(doctor)
    doctor.set_defaults(run=_doctor)

    plan = commands.add_parser(
        "next", help="what would run and why, and three commands that make sense now", allow_abbrev=False
    )
    plan.add_argument("--cores", "-c", help="as for snakemake; every other argument goes to it as well")
    add_configuration(plan)
    plan.set_defaults(run=_next)

    leaderboard = commands.add_parser("leaderboard", help="compare finished runs, with intervals over groups")
    leaderboard.add_argument("folders", nargs="*", help=_FOLDERS)
    add_configuration(leaderboard)
    leaderboard.set_defaults(run=_leaderboard)

    fetch = commands.add_parser("fetch", help="download and pin the pretrained weights that a configuration names")
    fetch.add_argument("file", nargs="?", help=_FILE)
    add_configuration(fetch)
    fetch.set_defaults(run=_fetch)

    forecast = commands.add_parser("forecast", help="what public and private boards can say about each row of a run")
    forecast.add_argument("folders", nargs="*", help=_FOLDERS)
    forecast.add_argument("--public", default="0.5", help="share or number of persons on the public board; default 0.5")
    forecast.add_argument("--persons", type=int, help="number of persons of the test set; default: as the data says")
    forecast.add_argument(
        "--score", help="the board's score: macro_f1, accuracy, log_loss, ...; default: the main metric"
    )
    forecast.add_argument("--seed", type=int, default=0, help="of the draws; default 0")
    forecast.add_argument("--json", action="store_true", help="everything as JSON")
    add_configuration(forecast)
    forecast.set_defaults(run=_forecast)
    return parser


def _configuration(asked: argparse.Namespace) -> tuple[str, Callable[[], Config]]:
    """The name of the configuration file, and a function that reads it."""
    file = asked.configfile[-1] if asked.configfile else str(PROJECT / "config/config.yaml")
    return file, partial(_load, file, asked.config)


def _folders(asked: argparse.Namespace) -> tuple[list[str], Callable[[], Config]]:
    """The results folders that a command names, by themselves or by their configurations, and as `_configuration`.

    Of a configuration alone there is no folder, as where `--configfile` gives it.
    """
    if len(asked.folders) == 1 and is_configuration(asked.folders[0]):
        asked.configfile, asked.folders = asked.folders, []
    folders = [_load(name, asked.config).results if is_configuration(name) else name for name in asked.folders]
    return folders, _configuration(asked)[1]


def _load(file: str, assignments: Sequence[str]) -> Config:
    wrong = [text for text in assignments if "=" not in text]
    if wrong:
        raise UserError(f"--config {wrong[0]}: is not KEY=VALUE; write, for example, --config data_root=FOLDER")
    values: dict[str, Any] = {}
    for key, _, value in (text.partition("=") for text in assignments):
        try:
            values[key] = yaml.safe_load(value)
        except yaml.YAMLError:
            values[key] = value
    return load_config(file, values)


def _doctor(asked: argparse.Namespace, _rest: list[str]) -> tuple[str, int]:
    from foldvote.commands.doctor import run_doctor

    file, load = _configuration(asked)
    return run_doctor(PROJECT, file, load, configuration_options(asked.configfile, asked.config))


def _next(asked: argparse.Namespace, rest: list[str]) -> tuple[str, int]:
    from foldvote.commands.dry_run import describe_plan

    if "--" in rest:  # targets go first, so that no option takes them for its values
        place = rest.index("--")
        rest = [*rest[place + 1 :], *rest[:place]]
    first = next((place for place, text in enumerate(rest) if text.startswith("-")), len(rest))
    if files := [text for text in rest[:first] if is_configuration(text)]:
        asked.configfile = files
        rest = [text for place, text in enumerate(rest) if place >= first or text not in files]
    _, load = _configuration(asked)
    given = [
        *rest,
        *(["--cores", asked.cores] if asked.cores else []),
        *configuration_options(asked.configfile, asked.config),
    ]
    return describe_plan(given, load(), asked.cores, PROJECT / "Snakefile")


def _leaderboard(asked: argparse.Namespace, _rest: list[str]) -> tuple[str, int]:
    from foldvote.commands.compare_runs import compare_runs

    folders, load = _folders(asked)
    return compare_runs(folders, lambda: load().results)


def _fetch(asked: argparse.Namespace, _rest: list[str]) -> tuple[str, int]:
    from foldvote.commands.fetch import run_fetch

    file, _ = _configuration(asked)
    data = load_yaml(file).get("data")
    if not (isinstance(data, dict) and data.get("layout") == "demo"):
        asked.config = ["data_root=.", *asked.config]  # weights need no data: these may lie on another machine
    return run_fetch(_load(file, asked.config), file)


def _forecast(asked: argparse.Namespace, _rest: list[str]) -> tuple[str, int]:
    from foldvote.commands.forecast import Question, run_forecast

    folders, load = _folders(asked)

    def own() -> tuple[str, Any, int]:
        config = load()
        return config.results, config.vote.fit_by, config.seed

    question = Question(asked.public, asked.persons, asked.score, asked.seed, asked.json)
    return run_forecast(folders, own, question)


if __name__ == "__main__":
    sys.exit(main())
