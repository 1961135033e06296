"""Train one trial of a search after another, in parallel with other workers."""

from pathlib import Path

from foldvote.runtime.garbage import imports_stay

with imports_stay():
    from foldvote.config.data import numeric_factor_of
    from foldvote.config.named_weights import weights_path
    from foldvote.config.recipe import Recipe
    from foldvote.config.runtime import Runtime
    from foldvote.config.tuning import Tune
    from foldvote.runtime.gpus import gpu_lease
    from foldvote.runtime.job_log import job, log
    from foldvote.runtime.resources import JobResources
    from foldvote.splits.folds import SplitFiles
    from foldvote.tuning.study import SearchSpec
    from foldvote.tuning.worker import SearchInputs, run_worker

if __name__ == "__main__":
    given, params = snakemake.input, snakemake.params
    runtime = Runtime.model_validate(snakemake.config["runtime"])
    with job(snakemake.log[0]), gpu_lease(log, snakemake.resources.gpu, sharers=runtime.members_per_gpu):
        run_worker(
            search=SearchSpec(
                params.model,
                Recipe.model_validate_json(params.recipe),
                Tune.model_validate_json(params.tune),
                tuple(params.folds),
                params.seed,
                list(params.views),
            ),
            worker=int(snakemake.wildcards.worker),
            # Not an output of the rule, because it must survive a failed job.
            folder=Path(runtime.state_dir or snakemake.config["results"]) / "tune",
            inputs=SearchInputs(
                SplitFiles(Path(given.classes), Path(given.folds), Path(given.certificate)),
                [Path(path) for path in given.pixels],
                dict(zip(params.pretrained, map(Path, given.pretrained), strict=True))
                | {name: weights_path(name) for name in params.pretrained_sha256},
                Path(given.manifest) if given.manifest else None,
                numeric_factor_of(params.numeric),
                [Path(path) for path in given.pseudo_pixels],
                [Path(path) for path in given.pseudo],
                Path(given.metric) if given.metric else None,
                [Path(path) for path in given.teachers],
                params.pretrained_sha256,
                tuple(Path(path) for path in given.metadata),
            ),
            resources=JobResources(snakemake.resources.gpu, snakemake.threads, runtime),
            code=params.code,
            done=Path(snakemake.output.done),
        )
