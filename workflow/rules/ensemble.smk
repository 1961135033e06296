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
        answers=own(CONFIG.image_answers_path),
        metadata=all_metadata_tables(),
        without_metadata=hidden_metadata(),
        guest_facts="<results>/ensemble/guests.json" if CONFIG.guests else [],
        metric=own_metric(CONFIG.metric),
    output:
        oof="<results>/ensemble/oof.parquet",
        test="<results>/ensemble/test.parquet" if CONFIG.has_test else [],
        reserve="<results>/ensemble/reserve.parquet" if CONFIG.folds.reserve else [],
        metrics="<results>/ensemble/metrics.json",
        weights="<results>/ensemble/weights.json",
        votes="<results>/ensemble/votes.json",
        prediction="<results>/ensemble/prediction.json",
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
        **told_plan(),
        members={name: len(FOLDS) for name in sorted(CONFIG.models)},
        metric=CONFIG.metric,
        own_metric=own_metric_digest(CONFIG.metric),
        vote=canonical(
            CONFIG.vote.model_dump(
                mode="json", exclude={"coverage", "covers", "budget"}
            )
        ),
        submission=canonical(CONFIG.submission.columns),
        prediction=canonical(CONFIG.prediction),
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


if CONFIG.submission.unit == "group":

    rule group_answers:
        """Choose how the images of a group become one answer, score it, and answer the test groups."""
        input:
            oof="<results>/ensemble/oof.parquet",
            reserve=(
                "<results>/ensemble/reserve.parquet" if CONFIG.folds.reserve else []
            ),
            test="<results>/ensemble/test.parquet" if CONFIG.has_test else [],
            test_manifest=test_manifest(),
            manifest="<results>/data/manifest/split=train/manifest.parquet",
            weights="<results>/ensemble/weights.json",
            folds="<results>/folds/folds.parquet",
            certificate="<results>/folds/certificate.json",
            classes="<results>/data/classes.json",
            answers=own(CONFIG.answers_path),
            metric=own_metric(CONFIG.metric),
        output:
            groups="<results>/ensemble/groups.parquet" if CONFIG.has_test else [],
            scores="<results>/ensemble/group_scores.json",
        log:
            "<logs>/group_answers.log",
        benchmark:
            "<benchmarks>/group_answers.tsv"
        conda:
            "../../envs/foldvote.yaml"
        params:
            submission=canonical(CONFIG.submission.model_dump(mode="json")),
            score=CONFIG.vote.score,
            metric=CONFIG.metric,
            own_metric=own_metric_digest(CONFIG.metric),
            draws=CONFIG.vote.draws,
            pattern=CONFIG.data.test_group_pattern,
            seed=CONFIG.seed,
            code=digest("answer_groups.py"),
        script:
            "../scripts/answer_groups.py"

    rule row_groups:
        """Answer the test groups by one row of the leaderboard."""
        input:
            votes="<results>/ensemble/rows/{row}.parquet",
            manifest=test_manifest(),
            scores="<results>/ensemble/group_scores.json",
            classes="<results>/data/classes.json",
        output:
            groups="<results>/ensemble/row_groups/{row}.parquet",
        log:
            "<logs>/row_groups/{row}.log",
        conda:
            "../../envs/foldvote.yaml"
        params:
            pattern=CONFIG.data.test_group_pattern,
            code=digest("answer_entry_groups.py"),
        script:
            "../scripts/answer_entry_groups.py"


rule frontier:
    """Score and price subsets of models, folds and views; with a budget, apply the best one that fits."""
    input:
        oof=([] if CONFIG.folds.reserve else member_files("oof", "predictions.parquet")),
        reserve=(
            member_files("reserve", "predictions.parquet")
            if CONFIG.folds.reserve
            else []
        ),
        test=member_files("test", "predictions.parquet") if budget_votes() else [],
        timings=member_timings(predicted_parts()),
        weights=member_files("train", "model.safetensors"),
        folds="<results>/folds/folds.parquet",
        certificate="<results>/folds/certificate.json",
        classes="<results>/data/classes.json",
    output:
        table="<results>/ensemble/frontier.csv",
        figure=report(
            "<results>/ensemble/frontier.svg",
            caption="../report/frontier.rst",
            category="Results",
            labels={"what": "cost against score", "as": "svg"},
        ),
        budget="<results>/ensemble/budget.json" if CONFIG.vote.budget else [],
        votes=budget_votes(),
    log:
        "<logs>/frontier.log",
    benchmark:
        "<benchmarks>/frontier.tsv"
    conda:
        "../../envs/foldvote.yaml"
    params:
        members={name: len(FOLDS) for name in sorted(CONFIG.models)},
        vote=canonical(
            CONFIG.vote.model_dump(
                mode="json", include={"score", "calibration", "draws", "budget"}
            )
        ),
        seed=CONFIG.seed,
        code=digest("draw_frontier.py"),
    script:
        "../scripts/draw_frontier.py"


if CONFIG.has_test:

    rule submission:
        """Write the predictions of the ensemble in the order of the sample file, and check them."""
        input:
            votes=budget_votes() or answered("test", "groups"),
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
            metadata=lambda w: row_metadata(w.row),
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
            votes=answered("rows/{row}", "row_groups/{row}"),
            classes="<results>/data/classes.json",
            sample=own(CONFIG.sample_path),
        output:
            submission="<results>/submission/{row}.csv",
        log:
            "<logs>/submission/{row}.log",
