"""Make the manifest of one split."""

from pathlib import Path

from foldvote.config.external import AllData
from foldvote.data.manifest import build_manifest
from foldvote.runtime.job_log import job

if __name__ == "__main__":
    with job(snakemake.log[0]):
        build_manifest(
            AllData.model_validate_json(snakemake.params.settings),
            snakemake.wildcards.split,
            Path(snakemake.output.manifest),
            Path(snakemake.output.quarantine),
            workers=snakemake.threads,
        )
