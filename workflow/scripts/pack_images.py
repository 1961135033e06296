"""Pack the images of one split at one size."""

from pathlib import Path

from foldvote.config.data import Images
from foldvote.data.image_folders import image_folders
from foldvote.data.packed_images import pack_images
from foldvote.runtime.job_log import job

if __name__ == "__main__":
    with job(snakemake.log[0]):
        pack_images(
            manifest_path=Path(snakemake.input.manifest),
            root=image_folders(snakemake.params.root, snakemake.params.external),
            rules=Images.model_validate_json(snakemake.params.images),
            size=snakemake.wildcards.size,
            roi=snakemake.wildcards.roi,
            path=Path(snakemake.output.pixels),
            workers=snakemake.threads,
            boxes_path=Path(snakemake.input.boxes) if snakemake.input.boxes else None,
            min_confidence=snakemake.params.min_confidence,
            fit=snakemake.wildcards.fit.removeprefix("/fit=") or "squash",
        )
