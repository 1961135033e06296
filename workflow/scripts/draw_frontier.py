"""Score and price subsets of models, folds and views, and apply the one that fits the budget."""

from foldvote.config.ensemble import Vote
from foldvote.ensemble.inputs import EnsembleInputs
from foldvote.io.paths import named_files
from foldvote.report.frontier import FrontierFiles, write_frontier
from foldvote.runtime.job_log import job

if __name__ == "__main__":
    params = snakemake.params
    with job(snakemake.log[0]):
        write_frontier(
            inputs=named_files(EnsembleInputs, snakemake.input),
            files=named_files(FrontierFiles, snakemake.output),
            expected=params.members,
            settings=Vote.model_validate_json(params.vote),
            seed=params.seed,
        )
