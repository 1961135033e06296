"""Make Grad-CAM heatmaps of one model for some validation images."""

from pathlib import Path

from foldvote.runtime.garbage import imports_stay

with imports_stay():
    from foldvote.config.runtime import Runtime
    from foldvote.inference.gradcam import write_attention
    from foldvote.runtime.gpus import gpu_lease
    from foldvote.runtime.job_log import job, log
    from foldvote.runtime.resources import JobResources
    from foldvote.splits.folds import SplitFiles

if __name__ == "__main__":
    given = snakemake.input
    runtime = Runtime.model_validate(snakemake.config["runtime"])
    with job(snakemake.log[0]), gpu_lease(log, snakemake.resources.gpu, sharers=runtime.members_per_gpu):
        write_attention(
            weights=[Path(path) for path in given.weights],
            images_path=Path(given.pixels),
            split=SplitFiles(Path(given.classes), Path(given.folds), Path(given.certificate)),
            votes_path=Path(given.votes),
            resources=JobResources(snakemake.resources.gpu, snakemake.threads, runtime),
            path=Path(snakemake.output.attention),
        )
