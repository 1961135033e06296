"""Make the manifest of one split."""

from pathlib import Path

from foldvote.console import job
from foldvote.datasettings import DataSettings
from foldvote.manifest import build_manifest

if __name__ == "__main__":
    with job(snakemake.log[0]):
        build_manifest(
            DataSettings.model_validate_json(snakemake.params.settings),
            snakemake.wildcards.split,
            Path(snakemake.output.manifest),
            Path(snakemake.output.quarantine),
            workers=snakemake.threads,
        )
