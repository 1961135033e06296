"""Predict images with one member: those of its fold, the reserve and the test images, or those that it learnt from."""

from dataclasses import replace
from pathlib import Path

from foldvote.runtime.garbage import imports_stay

with imports_stay():
    from foldvote.config.runtime import Runtime
    from foldvote.inference.predict_member import PartFiles, predict_member
    from foldvote.runtime.gpus import gpu_lease
    from foldvote.runtime.job_log import job, log
    from foldvote.runtime.resources import JobResources
    from foldvote.splits.folds import SplitFiles

if __name__ == "__main__":
    given, made, params = snakemake.input, snakemake.output, snakemake.params
    runtime = Runtime.model_validate(snakemake.config["runtime"])
    files = [given.pixels, made.predictions, made.timings, *([given.features] if given.get("features") else [])]
    parts = [PartFiles(part, *map(Path, paths)) for part, *paths in zip(params.parts, *files, strict=True)]
    if given.get("metadata"):
        parts = [replace(part, manifest=Path(path)) for part, path in zip(parts, given.metadata, strict=True)]
    with job(snakemake.log[0]), gpu_lease(log, snakemake.resources.gpu, sharers=runtime.members_per_gpu):
        predict_member(
            weights=Path(given.weights),
            sidecar=Path(given.sidecar),
            split=SplitFiles(Path(given.classes), Path(given.folds), Path(given.certificate)),
            parts=parts,
            views=list(params.views),
            resources=JobResources(snakemake.resources.gpu, snakemake.threads, runtime),
        )
