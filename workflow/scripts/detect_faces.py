"""Find the faces of one split, or take them from the user's table."""

from pathlib import Path

from foldvote.config.data import Images
from foldvote.data.face_detection import write_boxes, write_own_boxes
from foldvote.data.image_folders import image_folders
from foldvote.runtime.job_log import job

if __name__ == "__main__":
    with job(snakemake.log[0]):
        manifest, boxes = Path(snakemake.input.manifest), Path(snakemake.output.boxes)
        if snakemake.input.own:
            write_own_boxes(
                manifest, [Path(other) for other in snakemake.input.others], Path(snakemake.input.own), boxes
            )
        else:
            write_boxes(
                manifest_path=manifest,
                root=image_folders(snakemake.params.root, snakemake.params.external),
                rules=Images.model_validate_json(snakemake.params.images),
                path=boxes,
                workers=snakemake.threads,
            )
