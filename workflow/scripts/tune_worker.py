"""Search a recipe: train one trial after another, beside other workers."""

from pathlib import Path

from foldvote.console import job, say
from foldvote.jobs import Machine, SplitFiles
from foldvote.locks import gpu_lease
from foldvote.recipes import Recipe
from foldvote.sections import Runtime
from foldvote.study import Search
from foldvote.tuneworker import SearchInputs, work
from foldvote.tuning import Tune

if __name__ == "__main__":
    given, params = snakemake.input, snakemake.params
    runtime = Runtime.model_validate(snakemake.config["runtime"])
    with job(snakemake.log[0]), gpu_lease(say, wanted=snakemake.resources.gpu):
        work(
            search=Search(
                params.model,
                Recipe.model_validate_json(params.recipe),
                Tune.model_validate_json(params.tune),
                tuple(params.folds),
                params.seed,
                list(params.views),
            ),
            worker=int(snakemake.wildcards.worker),
            # What is no output of the rule: it must outlive a job that fails.
            folder=Path(runtime.state_dir or snakemake.config["results"]) / "tune",
            inputs=SearchInputs(
                SplitFiles(Path(given.classes), Path(given.folds), Path(given.certificate)),
                [Path(path) for path in given.pixels],
                dict(zip(params.pretrained, map(Path, given.pretrained), strict=True)),
                Path(given.manifest) if given.manifest else None,
                tuple(params.age_borders) or None,
                [Path(path) for path in given.pseudo_pixels],
                [Path(path) for path in given.pseudo],
            ),
            machine=Machine(snakemake.resources.gpu, snakemake.threads, runtime),
            code=params.code,
            done=Path(snakemake.output.done),
        )
