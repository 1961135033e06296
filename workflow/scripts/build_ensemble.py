"""Hold the contest of votes, and score it."""

from pathlib import Path

from foldvote.config.data import numeric_factor_of
from foldvote.config.ensemble import Submission, Vote
from foldvote.ensemble.build_ensemble import EnsembleFiles, make_ensemble
from foldvote.ensemble.inputs import EnsembleInputs
from foldvote.runtime.job_log import job

if __name__ == "__main__":
    given, made, params = snakemake.input, snakemake.output, snakemake.params
    with job(snakemake.log[0]):
        make_ensemble(
            inputs=EnsembleInputs(
                oof=[Path(path) for path in given.oof],
                test=[Path(path) for path in given.test],
                folds=Path(given.folds),
                certificate=Path(given.certificate),
                classes=Path(given.classes),
                timings=[Path(path) for path in given.timings],
                weights=[Path(path) for path in given.weights],
                manifest=Path(given.manifest),
                answers=Path(given.answers) if given.answers else None,
                numeric=numeric_factor_of(params.numeric),
            ),
            files=EnsembleFiles(
                oof=Path(made.oof),
                test=Path(made.test) if made.test else None,
                metrics=Path(made.metrics),
                weights=Path(made.weights),
                votes=Path(made.votes),
                slices=Path(made.slices),
                reliability=Path(made.reliability),
                issues=Path(made.issues),
                leaderboard=Path(made.leaderboard),
            ),
            expected=params.members,
            settings=Vote.model_validate_json(params.vote),
            submission=Submission.model_validate_json(params.submission),
            seed=params.seed,
        )
