"""Predict images with one member: those of its fold, the reserve, the test images, or those that it learnt from."""

from pathlib import Path

from foldvote.runtime.garbage import imports_stay

with imports_stay():
    from foldvote.config.runtime import Runtime
    from foldvote.inference.predict_member import predict_member
    from foldvote.runtime.gpus import gpu_lease
    from foldvote.runtime.job_log import job, log
    from foldvote.runtime.resources import JobResources
    from foldvote.splits.folds import SplitFiles

if __name__ == "__main__":
    given, made, params = snakemake.input, snakemake.output, snakemake.params
    runtime = Runtime.model_validate(snakemake.config["runtime"])
    with job(snakemake.log[0]), gpu_lease(log, snakemake.resources.gpu, sharers=runtime.members_per_gpu):
        predict_member(
            weights=Path(given.weights),
            sidecar=Path(given.sidecar),
            images_path=Path(given.pixels),
            split=SplitFiles(Path(given.classes), Path(given.folds), Path(given.certificate)),
            part=params.part,
            views=list(params.views),
            predictions=Path(made.predictions),
            timing=Path(made.timing),
            resources=JobResources(snakemake.resources.gpu, snakemake.threads, runtime),
            features=Path(given.features[0]) if given.get("features") else None,
        )
