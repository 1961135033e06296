"""The report: one page on a finished run, and its figures and tables as files beside it."""

import json
import subprocess
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from foldvote.config.data import Images, layout_section
from foldvote.data.layouts.registry import layout_of
from foldvote.data.packed_images import PackedImages
from foldvote.inference.heatmaps import ClassHeatmap, read_heatmaps
from foldvote.report.html import EmbeddedImages, write_page
from foldvote.report.results.attention import overlay
from foldvote.report.results.gallery import Confusion, ReportGallery, build_gallery, confused_pairs
from foldvote.report.results.inputs import RunFiles, RunResults, read_run
from foldvote.report.results.tables import MOST_PAIRS, draw_figures, page_figures, page_tables, save_beside
from foldvote.report.results.tuning import search_shown
from foldvote.report.thumbnails import load_thumbnails
from foldvote.runtime.job_log import log

BUDGET = 11_000_000  # bytes of embedded pictures
HEIGHT = 96  # of a picture, pixels
MOST_LEVELS = 60  # of a confusion matrix; with more, what is taken for what stands in a list alone
MOST_OPINIONS = 16  # of one image in the cells; an ensemble of hundreds would outweigh its pictures
MOST_FITTED = 20_000  # letters of what the vote has fitted; a stacking of many models has megabytes
_PIECE = 1500  # pictures that are decoded at once: the last of them may not fit
CONTENTS = (
    ("scores", "Scores"),
    ("votes", "Votes"),
    ("learning", "Learning"),
    ("confusion", "Confusion"),
    ("classes", "Classes"),
    ("slices", "Slices"),
    ("calibration", "Calibration"),
    ("losses", "Top losses"),
    ("attention", "Where they look"),
    ("persons", "Persons"),
    ("suspects", "Label suspects"),
    ("tuning", "Tuning"),
    ("source", "Made from"),
)


def write_report(
    files: RunFiles,
    root: Path,
    rules: Images,
    settings: Mapping[str, Any],
    page_path: Path,
    folder: Path,
    attention: Path,
    pixels: Path,
    workers: int = 1,
    search: Path | None = None,
) -> None:
    """Write the page, and its figures (SVG) and tables (CSV).

    Args:
        files: the finished run.
        root: the data folder, from which the pictures are taken.
        rules: how images are decoded.
        settings: the configuration, which is shown; its `data` must be whole.
        page_path: the HTML file.
        folder: of figures and tables.
        attention: what gradcam.write_attention wrote.
        pixels: the packed training images that it was made on.
        workers: processes that decode.
        search: tune/trials.parquet, where a recipe was searched.

    Raises:
        UserError: if an input is missing, damaged or of another run, or an image changed since the manifest was made.
    """
    data = layout_section(settings["data"])
    outcome = read_run(files, data.numeric_factor)
    exhibits = build_gallery(outcome, layout_of(data))
    album = EmbeddedImages(BUDGET, HEIGHT)
    looks = _looks(album, read_heatmaps(attention), PackedImages(pixels))
    numbers = _fill(album, outcome, exhibits, root, rules, workers)
    kept = draw_figures(outcome, exhibits)
    save_beside(outcome, exhibits, kept, folder)
    write_page(
        page_path,
        "report.html",
        title=f"Report: {Path(settings['results']).name}" if "results" in settings else "Report",
        contents=CONTENTS if search else [entry for entry in CONTENTS if entry[0] != "tuning"],
        album=album.sources,
        outcome=outcome,
        exhibits=exhibits,
        tables=page_tables(outcome),
        figures=page_figures(outcome, kept),
        pairs=[(each, *_pairs(outcome, each)) for each in exhibits.confusions],
        most_levels=MOST_LEVELS,
        gallery=_gallery(outcome, exhibits, numbers),
        shot=_describer(outcome, numbers),
        looks=looks,
        place_of={image_id: place for place, image_id in enumerate(outcome.rows["image_id"])},
        search=search_shown(search) if search else None,
        settings=settings,
        vote_used=_vote(outcome.vote),
        commit=code_version(),
    )
    log(f"{page_path}: {len(album.sources):,} pictures, {page_path.stat().st_size / 1e6:.1f} MB")


def _vote(params: Mapping[str, Any]) -> dict[str, Any]:
    """The vote that is used; where it has fitted too much to read, without that."""
    if len(json.dumps(params)) <= MOST_FITTED:
        return dict(params)
    shown = {name: params[name] for name in ("kind", "candidates", "calibration") if name in params}
    return shown | {"fitted": "see ensemble/weights.json"}


def code_version() -> str:
    """The commit of this code, `+` behind it where files were changed since; empty where git does not know."""
    here = Path(__file__).parent
    try:
        head, changed = (
            subprocess.run(
                ["git", "-C", str(here), *arguments], capture_output=True, text=True, timeout=20, check=True
            ).stdout.strip()
            for arguments in (("rev-parse", "HEAD"), ("status", "--porcelain", "--untracked-files=no", "."))
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    return head + ("+" if changed else "")


def _looks(
    album: EmbeddedImages, glances: Sequence[ClassHeatmap], pixels: PackedImages
) -> dict[str, list[tuple[str, int | None]]]:
    """By image: pairs of what a picture shows and its number. First the image as packed, then a class on it each."""
    looks: dict[str, list[tuple[str, int | None]]] = {}
    for one in glances:
        image = pixels[int(pixels.rows([one.image_id])[0])]
        plain = album.add(f"{one.image_id}\0packed", image)
        over = album.add(f"{one.image_id}\0{one.code}", overlay(image, one.heat))
        shown = looks.setdefault(one.image_id, [(f"as {one.model} {one.fold} sees it", plain)])
        shown.append((f"for {one.name}" if one.heat.any() else f"nothing speaks for {one.name}", over))
    return looks


def _fill(
    album: EmbeddedImages, outcome: RunResults, exhibits: ReportGallery, root: Path, rules: Images, workers: int
) -> dict[int, int | None]:
    """Put the pictures into the album until it is full: its number of each place, None where there was no room."""
    ids = outcome.rows["image_id"].tolist()
    wanted = exhibits.places()
    numbers: dict[int, int | None] = dict.fromkeys(wanted)
    for start in range(0, len(wanted), _PIECE):
        piece = wanted[start : start + _PIECE]
        keys = [("train", ids[place]) for place in piece]
        pictures = load_thumbnails({"train": outcome.rows}, keys, root, rules, HEIGHT, workers)
        for place, key in zip(piece, keys, strict=True):
            numbers[place] = album.add(ids[place], pictures[key])
        if numbers[piece[-1]] is None:
            break
    return numbers


def _gallery(outcome: RunResults, exhibits: ReportGallery, numbers: Mapping[int, int | None]) -> dict[str, Any]:
    """What the cells of the confusion matrices open, for the page's script.

    `texts` are names; `shots` are [picture, image id, true class, predicted class, probability of both, opinions],
    names as numbers of `texts`; `cells` are numbers of shots, by the name of a confusion and `true-said`. Images whose
    picture found no room are left out.
    """
    texts: dict[str, int] = {}
    shots: list[list[Any]] = []
    known: dict[int, int] = {}

    def text(name: str) -> int:
        return texts.setdefault(name, len(texts))

    describe = _describer(outcome, numbers)

    def shot(place: int) -> int:
        if place not in known:
            known[place] = len(shots)
            one = describe(place)
            opinions = [[text(member), text(said), sure] for member, said, sure in one["opinions"][:MOST_OPINIONS]]
            names = [text(one["truth"]), text(one["said"])]
            shots.append([one["number"], one["name"], *names, one["p_truth"], one["p_said"], opinions])
        return known[place]

    cells = {
        confusion.name: {
            f"{true}-{said}": [shot(place) for place in places.tolist() if numbers[place] is not None]
            for (true, said), places in confusion.cells.items()
        }
        for confusion in exhibits.confusions
    }
    return {"texts": list(texts), "shots": shots, "cells": cells}


def _describer(outcome: RunResults, numbers: Mapping[int, int | None]) -> Callable[[int], dict[str, Any]]:
    """A function that says of an image what stands below its picture."""
    ids, names = outcome.rows["image_id"].tolist(), outcome.scheme.classes
    labels, predicted = outcome.labels, outcome.predicted
    given, sure = outcome.chance_of(labels), outcome.chance_of(predicted)
    opinions = _opinions(outcome)

    def describe(place: int) -> dict[str, Any]:
        place = int(place)
        return {
            "number": numbers.get(place),
            "name": ids[place],
            "truth": names[labels[place]],
            "said": names[predicted[place]],
            "right": bool(labels[place] == predicted[place]),
            "p_truth": round(float(given[place]), 4),
            "p_said": round(float(sure[place]), 4),
            "opinions": opinions[place],
        }

    return describe


def _opinions(outcome: RunResults) -> list[Sequence[tuple[str, str, float]]]:
    """What each member says of each image, in the order of the rows: (member, class, probability)."""
    said = outcome.opinions
    of_image: list[list[tuple[str, str, float]]] = [[] for _ in range(len(outcome.rows))]
    columns = (said[name].tolist() for name in ("place", "model", "fold", "said", "confidence"))
    for place, model, fold, name, confidence in zip(*columns, strict=True):
        of_image[place].append((f"{model} {fold}", name, round(confidence, 4)))
    return of_image


def _pairs(outcome: RunResults, confusion: Confusion) -> tuple[Any, npt.NDArray[np.float64]]:
    """Rows of what is taken for what, with the numbers of their cells, and the shares of each true level."""
    pairs = confused_pairs(outcome, confusion)
    shares = confusion.counts / np.maximum(confusion.counts.sum(axis=1, keepdims=True), 1)
    return pairs.head(MOST_PAIRS).to_dict("records"), shares
