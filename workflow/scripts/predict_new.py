"""Predict new images with the finished ensemble."""

import json
from pathlib import Path

from foldvote.runtime.garbage import imports_stay

with imports_stay():
    from foldvote.config.data import layout_section
    from foldvote.config.runtime import Runtime
    from foldvote.deployment.new_images import list_new_images
    from foldvote.deployment.predict_new import NewFiles, predict_new
    from foldvote.io.paths import named_files
    from foldvote.runtime.gpus import gpu_lease
    from foldvote.runtime.job_log import job, log
    from foldvote.runtime.resources import JobResources

if __name__ == "__main__":
    params = snakemake.params
    runtime = Runtime.model_validate(snakemake.config["runtime"])
    with job(snakemake.log[0]), gpu_lease(log, snakemake.resources.gpu, sharers=runtime.members_per_gpu):
        folder = Path(snakemake.output.table).parent
        results = folder.parent
        predict_new(
            results=results,
            listed=list_new_images(Path(params.new), layout_section(json.loads(params.data)), results),
            files=named_files(NewFiles, snakemake.output, store=folder / "parts"),
            resources=JobResources(snakemake.resources.gpu, snakemake.threads, runtime),
            code=params.code,
        )
