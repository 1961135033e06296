"""The data check: one page about the data before any training, and its counts as a CSV file."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from PIL import Image

from foldvote.config.data import Images
from foldvote.config.layout_facts import NumericFactor
from foldvote.data.image_folders import Root
from foldvote.errors import UserError
from foldvote.io.csv_files import write_csv
from foldvote.report.data_check.checks import certificate_in_words, run_checks
from foldvote.report.data_check.counts import all_counts
from foldvote.report.data_check.gallery import choose_images
from foldvote.report.data_check.inputs import DataCheckFiles, read_data_check_inputs
from foldvote.report.data_check.tables import page_figures, page_tables
from foldvote.report.html import EmbeddedImages, thumbnail, write_page
from foldvote.report.thumbnails import load_thumbnails
from foldvote.runtime.checks import tally
from foldvote.runtime.job_log import log

BUDGET = 6_000_000  # bytes of embedded images
HEIGHT = 128  # of a thumbnail, in pixels
BATCH_HEIGHT = 1600  # largest height of the preview of an augmented batch, in pixels
CONTENTS = (
    ("findings", "Findings"),
    ("counts", "Counts"),
    ("files", "Files"),
    ("light", "Light"),
    ("folds", "Folds"),
    ("persons", "Persons"),
    ("alike", "Look-alikes"),
    ("corrections", "Corrections"),
    ("quarantine", "Quarantine"),
    ("batch", "Augmentation"),
    ("source", "Provenance"),
)


def write_data_check(
    files: DataCheckFiles,
    root: Root,
    rules: Images,
    previews: Mapping[str, Path],
    page_path: Path,
    counts_path: Path,
    numeric: NumericFactor | None = None,
    seed: int = 0,
    workers: int = 1,
) -> None:
    """Write the page and the table of counts, and log the number of findings.

    Args:
        files: the outputs of the data stages.
        root: the data folder, and those of external data, from which the images are read.
        rules: how images are decoded.
        previews: PNG files of an augmented batch, by model.
        page_path: the HTML file to write.
        counts_path: the CSV file to write, with counts.all_counts.
        numeric: the factor with a number behind it, where there is one.
        seed: seed of the choice of persons that are shown.
        workers: number of processes that decode images.

    Raises:
        UserError: if an input is missing or damaged, or an image has changed since the manifest was made.
    """
    inputs = read_data_check_inputs(files, numeric)
    findings = run_checks(inputs)
    gallery = choose_images(inputs, seed)
    thumbnails = load_thumbnails(inputs.manifests, gallery.keys(), root, rules, HEIGHT, workers)
    embedded = EmbeddedImages(BUDGET, HEIGHT)
    numbers = {key: embedded.add("\0".join(key), pixels) for key, pixels in thumbnails.items()}
    write_csv(all_counts(inputs.train, inputs.folds, inputs.label_space, numeric), counts_path, for_people=True)
    write_page(
        page_path,
        "data_check.html",
        title="Data check",
        contents=CONTENTS,
        section_names=dict(CONTENTS),
        images=embedded.sources,
        findings=findings,
        tally=tally(findings),
        inputs=inputs,
        certificate_text=certificate_in_words(inputs.certificate),
        tables=page_tables(inputs),
        figures=page_figures(inputs),
        gallery=gallery,
        numbers=numbers,
        batches=[(model, _preview(path)) for model, path in previews.items()],
    )
    log(f"{page_path}: {tally(findings)}")


def _preview(path: Path) -> str:
    """The preview of a batch as a data URI, in WebP, which is several times smaller than PNG."""
    try:
        with Image.open(path) as image:
            pixels = np.asarray(image.convert("RGB"))
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: cannot be read ({error}); delete it and run your command again") from error
    return thumbnail(pixels, BATCH_HEIGHT, quality=75)
