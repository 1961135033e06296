"""Average the weights of a model's members, and score the average on the reserve."""

from pathlib import Path

from foldvote.runtime.garbage import imports_stay

with imports_stay():
    from foldvote.config.runtime import Runtime
    from foldvote.io.paths import named_files
    from foldvote.runtime.gpus import gpu_lease
    from foldvote.runtime.job_log import job, log
    from foldvote.runtime.resources import JobResources
    from foldvote.splits.folds import SplitFiles
    from foldvote.training.average_members import AverageFiles, AverageInputs, average_members

if __name__ == "__main__":
    given, params = snakemake.input, snakemake.params
    split = SplitFiles(Path(given.classes), Path(given.folds), Path(given.certificate))
    runtime = Runtime.model_validate(snakemake.config["runtime"])
    with job(snakemake.log[0]), gpu_lease(log, snakemake.resources.gpu, sharers=runtime.members_per_gpu):
        average_members(
            inputs=named_files(AverageInputs, given, split=split),
            files=named_files(AverageFiles, snakemake.output),
            views=list(params.views),
            score=params.score,
            draws=params.draws,
            seed=params.seed,
            resources=JobResources(snakemake.resources.gpu, snakemake.threads, runtime),
        )
