"""Measure brightness and colour of the packed images of one split."""

from pathlib import Path

from foldvote.data.image_statistics import measure_images
from foldvote.runtime.job_log import job

if __name__ == "__main__":
    with job(snakemake.log[0]):
        measure_images(Path(snakemake.input.pixels), Path(snakemake.output.light))
