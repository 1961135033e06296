"""`foldvote next`: which jobs would run and why, from a dry run of Snakemake."""

import ast
import json
import logging
import re
import shlex
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from foldvote.commands.session import given_options
from foldvote.config.experiment import Config

MOST_REASONS = 3  # shown per rule
MOST_CHANGES = 6  # parameters shown per job
MOST_VALUES = 6  # shown per wildcard
_WIDEST = 60  # characters of a value or a command
_PARAMS = re.compile(r"Params have changed.*? before: (?P<before>.*) now: (?P<now>.*?) *(?P<rest>; Software .*)?$")
_PLAIN = {
    "Forced execution": "asked for by -R, -f or -F",
    "Set of input files has changed": "it has other input files than last time",
    "Software environment definition has changed": "its environment has changed",
    "Code has changed": "its script has changed",
}


@dataclass(frozen=True)
class Job:
    """A job of a dry run: its rule, wildcards, output files, and Snakemake's reason."""

    rule: str
    wildcards: dict[str, str]
    outputs: tuple[str, ...]
    reason: str


def describe_plan(arguments: Sequence[str], config: Config, cores: str | None, snakefile: Path) -> tuple[str, int]:
    """Make a dry run and describe it.

    Args:
        arguments: the arguments of the snakemake command, targets first, then options.
        config: the configuration.
        cores: value of --cores on the command line; None if it was not given.
        snakefile: the workflow, unless the arguments name one.

    Returns:
        Lines for a terminal, and the exit code: 1 if Snakemake refuses the dry run.
    """
    named = any(text in ("-s", "--snakefile") for text in arguments)
    jobs = planned_jobs([*arguments, *([] if named else ["--snakefile", str(snakefile)])])
    if jobs is None:
        doctor = shlex.join(["foldvote", "doctor", *given_options(arguments)])
        return f"This cannot run, for the reason above. Whether configuration and data are right: {doctor}", 1
    options, targets = _options(arguments), _targets(arguments)
    if cores is None:
        options = ["--cores", "all", *options]
    commands = [f"  {command:<{_WIDEST}}  {why}" for command, why in next_commands(jobs, config, options, targets)]
    return "\n".join([in_words(jobs), "", "Next:", *commands]), 0


def planned_jobs(arguments: Sequence[str]) -> list[Job] | None:
    """List the jobs that make files, in the order in which Snakemake would start them; None if it refuses.

    Snakemake is called in this process. Its log records for the event JOB_INFO, a documented interface of logger
    plugins, hold the rule, wildcards, files and reason of a job.

    Args:
        arguments: the arguments of the snakemake command. Snakemake itself prints what is wrong with them.
    """
    from snakemake.cli import args_to_api, parse_args
    from snakemake.logging import logger
    from snakemake_interface_logger_plugins.common import LogEvent

    jobs: list[Job] = []

    def note(record: logging.LogRecord) -> bool:
        """Keep a job's record; only errors are printed."""
        if getattr(record, "event", None) == LogEvent.JOB_INFO and record.output:  # type: ignore[attr-defined]
            own: dict[str, Any] = vars(record)
            jobs.append(
                Job(own["rule_name"], dict(own["wildcards"] or {}), tuple(own["output"]), own["reason"].strip())
            )
        return record.levelno >= logging.ERROR

    command = [*arguments, "--dry-run"]
    logger.addFilter(note)
    before, sys.argv = sys.argv, ["snakemake", *command]  # the Snakefile reads it
    try:
        parser, parsed = parse_args(command)
        return jobs if args_to_api(parsed, parser) else None
    except SystemExit:
        return None
    finally:
        logger.removeFilter(note)
        sys.argv = before


def in_words(jobs: Sequence[Job]) -> str:
    """Describe the jobs by rule: their number, their wildcards, and why they would run."""
    if not jobs:
        return "Nothing would run: every file is up to date."
    makes = {file: job.rule for job in jobs for file in job.outputs}
    by_rule: dict[str, list[Job]] = {}
    for job in jobs:
        by_rule.setdefault(job.rule, []).append(job)
    widest = max(map(len, by_rule))
    lines = [f"{len(jobs):,} {'job' if len(jobs) == 1 else 'jobs'} would run:"]
    for rule, some in by_rule.items():
        about = _about(some)
        lines.append(f"  {rule:<{widest}}  {len(some):>4}{'  ' if about else ''}{about}")
        reasons = Counter(reason for job in some for reason in _reasons(job.reason, makes))
        told = [reason for reason, _ in reasons.most_common(MOST_REASONS)]
        lines += [f"  {'':<{widest}}        {reason}" for reason in told]
    return "\n".join(lines)


def next_commands(
    jobs: Sequence[Job], config: Config, options: Sequence[str], targets: Sequence[str] = ()
) -> list[tuple[str, str]]:
    """Suggest three commands.

    Args:
        jobs: the jobs that would run.
        config: the configuration.
        options: options of the snakemake command, repeated in the suggestions.
        targets: its targets, which the jobs are for.

    Returns:
        At most three pairs of a command and a short explanation.
    """
    results, model = Path(config.results), next(iter(config.models))
    member = f"{config.results}/train/model={model}/fold=0/model.safetensors"
    trains = any(job.rule in ("train", "probe") for job in jobs)

    def command(*targets: str) -> str:
        return shlex.join(["snakemake", *targets, *options])

    def again(file: str) -> str:
        return shlex.join(["snakemake", *options, "-R", file])

    choices = []
    if not (results / "data_check.html").is_file():
        choices.append((command("data_check"), "one page about the data, without any training"))
    if trains:
        if not (results / f"preview/model={model}.png").is_file():
            choices.append((command("augment_preview"), "a page of augmented images"))
        choices.append((command(member), "one network alone: how long it takes, what it scores"))
    if jobs:
        choices.insert(min(len(choices), 2), (command(*targets), "all of the above"))
    else:
        if not (results / "report.html").is_file():
            choices.insert(0, (command("report"), "one page of results, with pictures"))
        choices += [
            (again(member), "one fold again, and the ensemble"),
            (again(f"{config.results}/leaderboard.csv"), "the ensemble alone"),
        ]
        choices.append((command("augment_preview"), "a page of augmented images"))
    return choices[:3]


def _options(arguments: Sequence[str]) -> list[str]:
    """The options of a command, without the targets before them and after `--`."""
    arguments = arguments[: arguments.index("--")] if "--" in arguments else arguments
    first = next((place for place, text in enumerate(arguments) if text.startswith("-")), len(arguments))
    return list(arguments[first:])


def _targets(arguments: Sequence[str]) -> list[str]:
    """The targets of a command: the words before its options, and those after `--`."""
    before, after = list(arguments), list[str]()
    if "--" in arguments:
        place = before.index("--")
        before, after = before[:place], before[place + 1 :]
    first = next((place for place, text in enumerate(before) if text.startswith("-")), len(before))
    return [*before[:first], *after]


def _about(jobs: Sequence[Job]) -> str:
    """The wildcards of some jobs: `model=a, b  fold=0, 1`."""
    values: dict[str, list[str]] = {}
    for job in jobs:
        for name, value in job.wildcards.items():
            seen = values.setdefault(name, [])
            if value not in seen:
                seen.append(value)
    return "  ".join(f"{name}={_few(sorted(seen), MOST_VALUES)}" for name, seen in values.items())


def _reasons(reason: str, makes: Mapping[str, str]) -> Iterator[str]:
    """Translate Snakemake's reasons for one job into plain words.

    Args:
        reason: the reason as Snakemake prints it.
        makes: by file the rule that would make it.
    """
    if changed := _PARAMS.search(reason):
        yield from (f"changed: {change}" for change in _changes(changed["before"], changed["now"]))
        reason = reason[: changed.start()] + (changed["rest"] or "")
    for part in filter(None, (text.strip() for text in reason.split("; "))):
        kind, _, rest = part.partition(": ")
        files = rest.split(", ")
        if kind == "Missing output files":
            yield f"missing: {_few(files, 1)}"
        elif kind == "Incomplete output files":
            yield f"left incomplete by a run that was killed: {_few(files, 1)}"
        elif kind == "Updated input files":
            yield f"newer than the output made from it: {_few(files, 1)}"
        elif kind == "Input files updated by another job":
            yield f"its input will be made again by: {', '.join(sorted({makes.get(file, file) for file in files}))}"
        else:
            yield next((words for begin, words in _PLAIN.items() if part.startswith(begin)), part)


def _changes(before: str, now: str) -> Iterator[str]:
    """Describe what differs between the old and the new parameters of a job."""
    old, new = _values(before), _values(now)
    if old is None or new is None:
        yield "settings of this rule"
        return
    if any(_is_digest(value, 16) for value in new):
        yield "its code"
    if any(_is_digest(value, 64) for value in new):
        yield "the image files (added, removed or of another size)"
    rest_old, rest_new = ([value for value in some if not _is_digest(value, 16, 64)] for some in (old, new))
    if len(rest_old) == len(rest_new) == 1:
        a, b = _flat(rest_old[0]), _flat(rest_new[0])
        names = [name for name in {**a, **b} if a.get(name) != b.get(name)]
        told = [f"{name}{': ' if name else ''}{_shown(a, name)} -> {_shown(b, name)}" for name in names[:MOST_CHANGES]]
        yield "; ".join([*told, *([f"and {len(names) - MOST_CHANGES} more"] if len(names) > MOST_CHANGES else [])])
    elif rest_old or rest_new:
        yield "settings of this rule"


def _values(text: str) -> list[Any] | None:
    """Parse values printed as Python literals, including JSON in strings; None if the text cannot be parsed."""
    if text.strip() == "<nothing exclusive>":
        return []
    try:
        values = ast.literal_eval(f"[{text.strip()}]")
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return None
    return [_from_json(value) for value in values]


def _from_json(value: Any) -> Any:
    if isinstance(value, str) and value[:1] in ("{", "["):
        try:
            return json.loads(value)
        except ValueError:
            return value
    return value


def _flat(value: Any, prefix: str = "") -> dict[str, Any]:
    """Flatten nested settings into dotted names; any other value is stored under the prefix."""
    if not isinstance(value, dict):
        return {prefix: value}
    return {
        name: inner for key, part in value.items() for name, inner in _flat(part, f"{prefix}.{key}".lstrip(".")).items()
    }


def _shown(settings: Mapping[str, Any], name: str) -> str:
    if name not in settings:
        return "(not there)"
    value = settings[name]
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= _WIDEST else f"{text[:_WIDEST]}..."


def _few(values: Sequence[str], most: int) -> str:
    more = f" and {len(values) - most} more" if len(values) > most else ""
    return ", ".join(values[:most]) + more


def _is_digest(value: Any, *lengths: int) -> bool:
    return isinstance(value, str) and len(value) in lengths and re.fullmatch("[0-9a-f]+", value) is not None
