"""The vote, its score and the submission.

Reads every member's predictions; writes ensemble/, leaderboard.csv and submission.csv.
"""


rule ensemble:
    """Let all members vote, and score the vote on predictions of persons they never saw."""
    input:
        oof=member_files("oof", "predictions.parquet"),
        test=member_files("test", "predictions.parquet") if CONFIG.has_test else [],
        timings=member_timings(),
        folds="<results>/folds/folds.parquet",
        certificate="<results>/folds/certificate.json",
        classes="<results>/data/classes.json",
        answers=CONFIG.answers_path or [],
    output:
        oof="<results>/ensemble/oof.parquet",
        test="<results>/ensemble/test.parquet" if CONFIG.has_test else [],
        metrics="<results>/ensemble/metrics.json",
        weights="<results>/ensemble/weights.json",
        leaderboard="<results>/leaderboard.csv",
    log:
        "<logs>/ensemble.log",
    benchmark:
        "<benchmarks>/ensemble.tsv"
    conda:
        "../../envs/foldvote.yaml"
    params:
        members={name: len(FOLDS) for name in sorted(CONFIG.models)},
        id_column=CONFIG.submission.id_column,
        answer_column=CONFIG.submission.answer_column,
        answer=CONFIG.submission.answer,
        code=digest("ensemble.py"),
    script:
        "../scripts/ensemble.py"


if CONFIG.has_test:

    rule submission:
        """Write the vote in the sample file's order, and check it."""
        input:
            votes="<results>/ensemble/test.parquet",
            classes="<results>/data/classes.json",
            sample=CONFIG.sample_path or [],
        output:
            submission="<results>/submission.csv",
        log:
            "<logs>/submission.log",
        conda:
            "../../envs/foldvote.yaml"
        params:
            settings=canonical(CONFIG.submission.model_dump()),
            code=digest("submission.py"),
        script:
            "../scripts/submission.py"
