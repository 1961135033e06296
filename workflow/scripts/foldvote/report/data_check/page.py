"""The data check: one page on the data before any training, and its counts as a table."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from PIL import Image

from foldvote.config.data import Images, NumericFactor
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

BUDGET = 6_000_000  # bytes of embedded pictures
HEIGHT = 128  # of a picture, pixels
BATCH_HEIGHT = 1600  # of the picture of an augmented batch at most, pixels
CONTENTS = (
    ("findings", "Findings"),
    ("counts", "Counts"),
    ("files", "Files"),
    ("light", "Light"),
    ("folds", "Folds"),
    ("persons", "Persons"),
    ("alike", "Look-alikes"),
    ("corrections", "Corrections"),
    ("quarantine", "Left out"),
    ("batch", "Augmented"),
    ("source", "Made from"),
)


def write_data_check(
    files: DataCheckFiles,
    root: Path,
    rules: Images,
    previews: Mapping[str, Path],
    page_path: Path,
    counts_path: Path,
    numeric: NumericFactor | None = None,
    seed: int = 0,
    workers: int = 1,
) -> None:
    """Write the page and the table of counts, and tell how many findings there are.

    Args:
        files: what the data stages made.
        root: the data folder, from which the pictures are taken.
        rules: how images are decoded.
        previews: a picture of an augmented batch, by model.
        page_path: the HTML file.
        counts_path: the CSV file of counts.all_counts.
        numeric: the factor with a number behind it, where there is one.
        seed: chooses the persons that are shown.
        workers: processes that decode.

    Raises:
        UserError: if an input is missing or damaged, or an image changed since the manifest was made.
    """
    facts = read_data_check_inputs(files, numeric)
    verdicts = run_checks(facts)
    sheet = choose_images(facts, seed)
    pictures = load_thumbnails(facts.manifests, sheet.keys(), root, rules, HEIGHT, workers)
    album = EmbeddedImages(BUDGET, HEIGHT)
    numbers = {key: album.add("\0".join(key), pixels) for key, pixels in pictures.items()}
    write_csv(all_counts(facts.train, facts.folds, facts.scheme, numeric), counts_path)
    write_page(
        page_path,
        "data_check.html",
        title="Data check",
        contents=CONTENTS,
        names=dict(CONTENTS),
        album=album.sources,
        findings=verdicts,
        tally=tally(verdicts),
        facts=facts,
        words=certificate_in_words(facts.certificate),
        tables=page_tables(facts),
        figures=page_figures(facts),
        sheet=sheet,
        numbers=numbers,
        batches=[(model, _batch(path)) for model, path in previews.items()],
    )
    log(f"{page_path}: {tally(verdicts)}")


def _batch(path: Path) -> str:
    """The picture of a batch as a data URI: PNG is several times as large."""
    try:
        with Image.open(path) as image:
            pixels = np.asarray(image.convert("RGB"))
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: cannot be read ({error}); delete it and run `snakemake` again") from error
    return thumbnail(pixels, BATCH_HEIGHT, quality=75)
