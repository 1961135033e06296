"""The report: one page about a finished run, with its figures and tables as files beside it."""

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
from foldvote.ensemble.headline import headline
from foldvote.inference.heatmaps import ClassHeatmap, read_heatmaps
from foldvote.report.html import EmbeddedImages, write_page
from foldvote.report.results.attention import overlay
from foldvote.report.results.gallery import Confusion, ReportGallery, build_gallery, confused_pairs
from foldvote.report.results.inputs import RunFiles, RunResults, read_run
from foldvote.report.results.tables import MOST_PAIRS, draw_figures, page_figures, page_tables, save_files
from foldvote.report.results.tuning import search_summary
from foldvote.report.thumbnails import load_thumbnails
from foldvote.runtime.job_log import log

BUDGET = 11_000_000  # bytes of embedded images
HEIGHT = 96  # of a thumbnail, in pixels
MOST_LEVELS = 60  # of a confusion matrix; with more levels only the list of confused pairs is shown
MOST_MEMBERS = 16  # member predictions below one image of a cell; hundreds of them would outweigh the images
MOST_FITTED = 20_000  # characters of the fitted vote that are shown; a stacking of many models has megabytes
_CHUNK = 1500  # thumbnails that are decoded before the budget is checked
CONTENTS = (
    ("scores", "Scores"),
    ("votes", "Ensemble methods"),
    ("learning", "Learning curves"),
    ("confusion", "Confusion"),
    ("classes", "Classes"),
    ("slices", "Slices"),
    ("calibration", "Calibration"),
    ("losses", "Top losses"),
    ("attention", "Grad-CAM"),
    ("persons", "Persons"),
    ("label-issues", "Label issues"),
    ("tuning", "Tuning"),
    ("source", "Provenance"),
)


def write_report(
    files: RunFiles,
    root: Path,
    rules: Images,
    settings: Mapping[str, Any],
    page_path: Path,
    folder: Path,
    attention: Path,
    packed_path: Path,
    workers: int = 1,
    search: Path | None = None,
) -> None:
    """Write the page, its figures (SVG) and its tables (CSV).

    Args:
        files: the files of the finished run.
        root: the data folder, from which the images are read.
        rules: how images are decoded.
        settings: the configuration, which is shown; its `data` must be complete.
        page_path: the HTML file to write.
        folder: where figures and tables are written.
        attention: the heat maps, as written by gradcam.write_attention.
        packed_path: the packed training images that the heat maps were made on.
        workers: number of processes that decode images.
        search: tune/trials.parquet, if recipes were searched.

    Raises:
        UserError: if an input is missing, damaged or of another run, or an image has changed since the manifest was
            made.
    """
    data = layout_section(settings["data"])
    run = read_run(files, data.numeric_factor)
    gallery = build_gallery(run, layout_of(data))
    embedded = EmbeddedImages(BUDGET, HEIGHT)
    heatmaps = _embed_heatmaps(embedded, read_heatmaps(attention), PackedImages(packed_path))
    numbers = _embed_thumbnails(embedded, run, gallery, root, rules, workers)
    figures = draw_figures(run, gallery)
    save_files(run, gallery, figures, folder)
    write_page(
        page_path,
        "report.html",
        title=f"Report: {Path(settings['results']).name}" if "results" in settings else "Report",
        contents=CONTENTS if search else [entry for entry in CONTENTS if entry[0] != "tuning"],
        images=embedded.sources,
        run=run,
        gallery=gallery,
        tables=page_tables(run),
        figures=page_figures(run, figures),
        confusions=[(each, *_confused_pairs(run, each)) for each in gallery.confusions],
        most_levels=MOST_LEVELS,
        confusion_images=_confusion_images(run, gallery, numbers),
        describe=_describer(run, numbers),
        heatmaps=heatmaps,
        position_of={image_id: position for position, image_id in enumerate(run.rows["image_id"])},
        search=search_summary(search) if search else None,
        settings=settings,
        vote=_shown_vote(run.vote),
        worth=headline(run.metrics),
        commit=code_version(),
    )
    log(f"{page_path}: {len(embedded.sources):,} images, {page_path.stat().st_size / 1e6:.1f} MB")


def _shown_vote(vote: Mapping[str, Any]) -> dict[str, Any]:
    """The vote that is used; without its fitted parameters if they are too long to read."""
    if len(json.dumps(vote)) <= MOST_FITTED:
        return dict(vote)
    shown = {name: vote[name] for name in ("kind", "candidates", "calibration") if name in vote}
    return shown | {"fitted": "see ensemble/weights.json"}


def code_version() -> str:
    """The git commit of this code, with `+` appended if files have changed since; empty if git does not know it."""
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


def _embed_heatmaps(
    embedded: EmbeddedImages, heatmaps: Sequence[ClassHeatmap], packed: PackedImages
) -> dict[str, list[tuple[str, int | None]]]:
    """Embed the images with heat maps.

    Returns:
        For each image id, pairs of a caption and the number of an embedded image: first the image as it was packed,
        then one overlay for each class.
    """
    captioned: dict[str, list[tuple[str, int | None]]] = {}
    for one in heatmaps:
        image = packed[int(packed.rows([one.image_id])[0])]
        plain = embedded.add(f"{one.image_id}\0packed", image)
        overlaid = embedded.add(f"{one.image_id}\0{one.code}", overlay(image, one.heat))
        own = captioned.setdefault(one.image_id, [(f"input of {one.model} {one.fold}", plain)])
        own.append((f"for {one.name}" if one.heat.any() else f"no evidence for {one.name}", overlaid))
    return captioned


def _embed_thumbnails(
    embedded: EmbeddedImages, run: RunResults, gallery: ReportGallery, root: Path, rules: Images, workers: int
) -> dict[int, int | None]:
    """Embed the images of the gallery until the budget is spent.

    Returns:
        The number of the embedded image by position in run.rows; None if it did not fit.
    """
    ids = run.rows["image_id"].tolist()
    wanted = gallery.positions()
    numbers: dict[int, int | None] = dict.fromkeys(wanted)
    for start in range(0, len(wanted), _CHUNK):
        chunk = wanted[start : start + _CHUNK]
        keys = [("train", ids[position]) for position in chunk]
        thumbnails = load_thumbnails({"train": run.rows}, keys, root, rules, HEIGHT, workers)
        for position, key in zip(chunk, keys, strict=True):
            numbers[position] = embedded.add(ids[position], thumbnails[key])
        if numbers[chunk[-1]] is None:
            break
    return numbers


def _confusion_images(run: RunResults, gallery: ReportGallery, numbers: Mapping[int, int | None]) -> dict[str, Any]:
    """The images behind the cells of the confusion matrices, for the page's script.

    Returns:
        `texts`: names. `images`: lists of [embedded image, image id, true class, predicted class, probability of each
        of the two, member predictions], in which classes and members are indices into `texts`. `cells`: indices into
        `images`, by the name of a confusion matrix and `true-predicted`. Images that did not fit are left out.
    """
    texts: dict[str, int] = {}
    images: list[list[Any]] = []
    index_of: dict[int, int] = {}

    def text(name: str) -> int:
        return texts.setdefault(name, len(texts))

    describe = _describer(run, numbers)

    def image(position: int) -> int:
        if position not in index_of:
            index_of[position] = len(images)
            one = describe(position)
            members = [[text(name), text(own), chance] for name, own, chance in one["members"][:MOST_MEMBERS]]
            names = [text(one["truth"]), text(one["predicted"])]
            images.append([one["number"], one["name"], *names, one["p_truth"], one["p_predicted"], members])
        return index_of[position]

    cells = {
        confusion.name: {
            f"{true}-{predicted}": [image(position) for position in positions.tolist() if numbers[position] is not None]
            for (true, predicted), positions in confusion.cells.items()
        }
        for confusion in gallery.confusions
    }
    return {"texts": list(texts), "images": images, "cells": cells}


def _describer(run: RunResults, numbers: Mapping[int, int | None]) -> Callable[[int], dict[str, Any]]:
    """A function that gives what is written below the image at a position in run.rows."""
    ids, names = run.rows["image_id"].tolist(), run.label_space.classes
    labels, predicted = run.labels, run.predicted
    p_truth, p_predicted = run.probability_of(labels), run.probability_of(predicted)
    members = _member_predictions(run)

    def describe(position: int) -> dict[str, Any]:
        position = int(position)
        return {
            "number": numbers.get(position),
            "name": ids[position],
            "truth": names[labels[position]],
            "predicted": names[predicted[position]],
            "right": bool(labels[position] == predicted[position]),
            "p_truth": round(float(p_truth[position]), 4),
            "p_predicted": round(float(p_predicted[position]), 4),
            "members": members[position],
        }

    return describe


def _member_predictions(run: RunResults) -> list[list[tuple[str, str, float]]]:
    """For each row of run.rows, the prediction of each member: (member, class, probability)."""
    table = run.member_predictions
    by_image: list[list[tuple[str, str, float]]] = [[] for _ in range(len(run.rows))]
    columns = (table[name].tolist() for name in ("position", "model", "fold", "predicted", "probability"))
    for position, model, fold, predicted, probability in zip(*columns, strict=True):
        by_image[position].append((f"{model} {fold}", predicted, round(probability, 4)))
    return by_image


def _confused_pairs(run: RunResults, confusion: Confusion) -> tuple[Any, npt.NDArray[np.float64]]:
    """The most frequently confused pairs, and the confusion matrix as shares of each true level."""
    pairs = confused_pairs(run, confusion)
    shares = confusion.counts / np.maximum(confusion.counts.sum(axis=1, keepdims=True), 1)
    return pairs.head(MOST_PAIRS).to_dict("records"), shares
