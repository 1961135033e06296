"""Let all members vote, and score the vote."""

from foldvote.console import job
from foldvote.ensemble import make_ensemble

if __name__ == "__main__":
    given, made, params = snakemake.input, snakemake.output, snakemake.params
    with job(snakemake.log[0]):
        make_ensemble(
            oof_paths=given.oof,
            test_paths=given.test,
            timing_paths=given.timings,
            folds_path=given.folds,
            certificate_path=given.certificate,
            classes_path=given.classes,
            expected=params.members,
            answers=given.answers or None,
            id_column=params.id_column,
            answer_column=params.answer_column,
            answer=params.answer,
            oof_out=made.oof,
            test_out=made.test or None,
            metrics_out=made.metrics,
            weights_out=made.weights,
            leaderboard_out=made.leaderboard,
        )
