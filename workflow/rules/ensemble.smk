"""The ensemble, its scores and the submission.

Reads the predictions of every member; writes ensemble/, leaderboard.csv and submission.csv. No network runs, so that a
changed ensemble takes only seconds.
"""


rule ensemble:
    """Fit every ensemble method, score each one on held-out persons, and choose the best."""
    input:
        oof=member_files("oof", "predictions.parquet"),
        reserve=(
            member_files("reserve", "predictions.parquet")
            if CONFIG.folds.reserve
            else []
        ),
        test=member_files("test", "predictions.parquet") if CONFIG.has_test else [],
        timings=member_timings(),
        weights=member_files("train", "model.safetensors"),
        manifest="<results>/data/manifest/split=train/manifest.parquet",
        folds="<results>/folds/folds.parquet",
        certificate="<results>/folds/certificate.json",
        classes="<results>/data/classes.json",
        answers=own(CONFIG.answers_path),
        metric=own_metric(CONFIG.metric),
    output:
        oof="<results>/ensemble/oof.parquet",
        test="<results>/ensemble/test.parquet" if CONFIG.has_test else [],
        reserve="<results>/ensemble/reserve.parquet" if CONFIG.folds.reserve else [],
        metrics="<results>/ensemble/metrics.json",
        weights="<results>/ensemble/weights.json",
        votes="<results>/ensemble/votes.json",
        slices="<results>/ensemble/slices.csv",
        reliability="<results>/ensemble/reliability.csv",
        issues="<results>/ensemble/label_issues.parquet",
        leaderboard="<results>/leaderboard.csv",
    log:
        "<logs>/ensemble.log",
    benchmark:
        "<benchmarks>/ensemble.tsv"
    conda:
        "../../envs/foldvote.yaml"
    params:
        members={name: len(FOLDS) for name in sorted(CONFIG.models)},
        metric=CONFIG.metric,
        own_metric=own_metric_digest(CONFIG.metric),
        vote=canonical(CONFIG.vote.model_dump(mode="json")),
        submission=canonical(CONFIG.submission.model_dump(mode="json")),
        numeric=numeric_factor(),
        seed=CONFIG.seed,
        code=digest("build_ensemble.py"),
    script:
        "../scripts/build_ensemble.py"


if CONFIG.has_test:

    rule submission:
        """Write the predictions of the ensemble in the order of the sample file, and check them."""
        input:
            votes="<results>/ensemble/test.parquet",
            classes="<results>/data/classes.json",
            sample=own(CONFIG.sample_path),
        output:
            submission="<results>/submission.csv",
        log:
            "<logs>/submission.log",
        conda:
            "../../envs/foldvote.yaml"
        params:
            settings=canonical(CONFIG.submission.model_dump()),
            code=digest("write_submission.py"),
        script:
            "../scripts/write_submission.py"

    rule row:
        """Apply one row of the leaderboard to the test images: vote=<kind>, model=<name> or model=<name>/fold=<k>."""
        input:
            test=lambda w: row_tests(w.row),
            votes=lambda w: (
                "<results>/ensemble/votes.json" if w.row.startswith("vote=") else []
            ),
            folds="<results>/folds/folds.parquet",
            certificate="<results>/folds/certificate.json",
            classes="<results>/data/classes.json",
        output:
            votes="<results>/ensemble/rows/{row}.parquet",
        log:
            "<logs>/row/{row}.log",
        conda:
            "../../envs/foldvote.yaml"
        params:
            folds=len(FOLDS),
            code=digest("write_entry.py"),
        script:
            "../scripts/write_entry.py"

    use rule submission as row_submission with:
        input:
            votes="<results>/ensemble/rows/{row}.parquet",
            classes="<results>/data/classes.json",
            sample=own(CONFIG.sample_path),
        output:
            submission="<results>/submission/{row}.csv",
        log:
            "<logs>/submission/{row}.log",
