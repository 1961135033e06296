"""Train one member."""

from pathlib import Path

from foldvote.batches import Draws
from foldvote.console import job, say
from foldvote.jobs import Machine, SplitFiles
from foldvote.locks import gpu_lease
from foldvote.members import MemberFiles, MemberInputs, train_member
from foldvote.pseudo import PseudoInputs
from foldvote.recipes import Recipe
from foldvote.sections import Runtime

if __name__ == "__main__":
    given, made, params = snakemake.input, snakemake.output, snakemake.params
    runtime, of = Runtime.model_validate(snakemake.config["runtime"]), snakemake.wildcards
    # What is no output of the rule: it must outlive a job that fails.
    state = Path(runtime.state_dir or snakemake.config["results"])
    with job(snakemake.log[0]), gpu_lease(say, wanted=snakemake.resources.gpu) as gpus:
        train_member(
            draws=Draws(params.seed, of.model, int(of.fold)),
            recipe=Recipe.model_validate_json(params.recipe),
            code=params.code,
            inputs=MemberInputs(
                Path(given.pixels),
                SplitFiles(Path(given.classes), Path(given.folds), Path(given.certificate)),
                Path(given.pretrained) if given.pretrained else None,
                Path(given.manifest) if given.manifest else None,
                tuple(params.age_borders) or None,
                PseudoInputs(Path(given.pseudo_pixels), tuple(Path(path) for path in given.pseudo))
                if given.pseudo
                else None,
            ),
            resume=state / f"resume/model={of.model}/fold={of.fold}",
            tracking=state,
            files=MemberFiles(
                Path(made.weights), Path(made.last), Path(made.sidecar), Path(made.history), Path(made.timing)
            ),
            machine=Machine(len(gpus) or snakemake.resources.gpu, snakemake.threads, runtime),
        )
