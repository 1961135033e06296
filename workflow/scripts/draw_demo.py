"""Draw the embedded demo data."""

from pathlib import Path

from demo_faces.folder import draw_demo
from foldvote.runtime.job_log import job

if __name__ == "__main__":
    params = snakemake.params
    with job(snakemake.log[0]):
        draw_demo(
            Path(snakemake.output.answers).parent,
            params.profiles,
            params.test_profiles,
            params.picture_size,
            params.seed,
            snakemake.threads,
        )
