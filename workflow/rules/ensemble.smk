"""The ensemble, its scores and the submission.

Reads the predictions of every member; writes ensemble/, leaderboard.csv and submission.csv. No network runs, so that a
changed ensemble takes only seconds.
"""

if CONFIG.guests:

    # As soon as there is a split, and so beside the first trainings: hours later would be late.
    rule guests:
        """Check the predictions from elsewhere against the split and the test images."""
        input:
            **guest_parts(),
            folds="<results>/folds/folds.parquet",
            certificate="<results>/folds/certificate.json",
            classes="<results>/data/classes.json",
            test=(
                "<results>/data/manifest/split=test/manifest.parquet"
                if CONFIG.has_test
                else []
            ),
        output:
            facts="<results>/ensemble/guests.json",
        log:
            "<logs>/guests.log",
        priority: 1
        conda:
            "../../envs/foldvote.yaml"
        params:
            guests=sorted(CONFIG.guests),
            id_column=CONFIG.submission.id_column,
            code=digest("check_guests.py"),
        script:
            "../scripts/check_guests.py"


rule ensemble:
    """Fit every ensemble method, score each one on held-out persons, and choose the best."""
    input:
        **guest_parts(),
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
        guest_facts="<results>/ensemble/guests.json" if CONFIG.guests else [],
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
        vote=canonical(
            CONFIG.vote.model_dump(mode="json", exclude={"coverage", "covers"})
        ),
        submission=canonical(CONFIG.submission.model_dump(mode="json")),
        numeric=numeric_factor(),
        guests=sorted(CONFIG.guests),
        seed=CONFIG.seed,
        code=digest("build_ensemble.py"),
    script:
        "../scripts/build_ensemble.py"


rule review:
    """List the images that a person should look at first, with sets of classes that contain the truth."""
    input:
        oof="<results>/ensemble/oof.parquet",
        reserve="<results>/ensemble/reserve.parquet" if CONFIG.folds.reserve else [],
        test="<results>/ensemble/test.parquet" if CONFIG.has_test else [],
        folds="<results>/folds/folds.parquet",
        classes="<results>/data/classes.json",
        manifest=(
            "<results>/data/manifest/split=test/manifest.parquet"
            if CONFIG.has_test
            else []
        ),
    output:
        review="<results>/ensemble/review.csv",
        coverage="<results>/ensemble/coverage.json",
        slices="<results>/ensemble/coverage.csv",
    log:
        "<logs>/review.log",
    benchmark:
        "<benchmarks>/review.tsv"
    conda:
        "../../envs/foldvote.yaml"
    params:
        coverage=CONFIG.vote.coverage,
        covers=CONFIG.vote.covers,
        draws=CONFIG.vote.draws,
        seed=CONFIG.seed,
        code=digest("write_review.py"),
    script:
        "../scripts/write_review.py"


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
            guest_test=lambda w: row_guest_tests(w.row),
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
            guests=lambda w: entry_guests(w.row, CONFIG.guests),
            id_column=CONFIG.submission.id_column,
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
