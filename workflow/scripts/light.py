"""Measure brightness and colour of the packed images of one split."""

from pathlib import Path

from foldvote.console import job
from foldvote.light import measure_light

if __name__ == "__main__":
    with job(snakemake.log[0]):
        measure_light(Path(snakemake.input.pixels), Path(snakemake.output.light))
