"""Networks that learn from all groups, beside those of the folds, and a forecast of their score.

Reads a finished run; writes refit/ and two more submissions. No other target needs any of it: ask for `refit`. The rules
of training and prediction are those of the members, on other splits: one in which every image is learnt from and none
validated, where `fold` is the number of a network, and one for each share of the learning curve.
"""

if IS_MAIN and CONFIG.refit is None and "refit" in sys.argv[1:]:
    sys.exit(
        f"{CONFIG_FILE}: has no section `refit`, which says what is trained on all groups; "
        "add `refit: {seeds: 5}`, or see docs/refit.md"
        if ASKED.refit is None
        else f"{CONFIG.results}/plan.json: leaves out all models of `refit`; raise runtime.max_hours"
    )

if CONFIG.refit is not None:

    wildcard_constraints:
        share=r"0\.\d+",
        joint=r"refit|vote\+refit",

    # Everything that learns from all groups: the networks, their submissions, and what they are worth.
    rule refit:
        input:
            "<results>/leaderboard.csv",
            refit_files("train", "model.safetensors"),
            [f"<results>/submission/{name}.csv" for name in ("refit", "vote+refit")]
            if CONFIG.has_test
            else [],
            "<results>/refit/forecast.json" if CONFIG.refit.curve else [],

    rule refit_split:
        """Write the split in which every image is learnt from."""
        input:
            folds="<results>/folds/folds.parquet",
            certificate="<results>/folds/certificate.json",
        output:
            folds="<results>/refit/folds.parquet",
            certificate="<results>/refit/certificate.json",
        log:
            "<logs>/refit/split.log",
        conda:
            "../../envs/foldvote.yaml"
        params:
            seed=CONFIG.seed,
            code=digest("split_refit.py"),
        script:
            "../scripts/split_refit.py"

    # As soon as there is a split, and so beside the first trainings: too few groups for a curve are told then.
    use rule refit_split as curve_split with:
        output:
            folds="<results>/refit/curve/share={share}/folds.parquet",
            certificate="<results>/refit/curve/share={share}/certificate.json",
        log:
            "<logs>/refit/curve/share={share}.log",
        priority: 1

    rule refit_recipe:
        """Find how many epochs the networks of all groups are trained for."""
        input:
            sidecars=members_of("train", "model.json"),
        output:
            recipe="<results>/refit/recipe/model={model}.json",
        log:
            "<logs>/refit/recipe/model={model}.log",
        conda:
            "../../envs/foldvote.yaml"
        params:
            recipe=lambda w: RECIPES[w.model],
            code=digest("find_refit_recipe.py"),
        script:
            "../scripts/find_refit_recipe.py"

    use rule train as refit_train with:
        input:
            pixels=lambda w: pixels(recipe(w), "train"),
            folds="<results>/refit/folds.parquet",
            certificate="<results>/refit/certificate.json",
            classes="<results>/data/classes.json",
            pretrained=lambda w: own_weights(recipe(w).pretrained_file),
            manifest=lambda w: (
                "<results>/data/manifest/split=train/manifest.parquet"
                if recipe(w).labels.active
                else []
            ),
            metadata=lambda w: metadata_tables(recipe(w), "train"),
            recipe="<results>/refit/recipe/model={model}.json",
        output:
            weights="<results>/refit/train/model={model}/fold={fold}/model.safetensors",
            last="<results>/refit/train/model={model}/fold={fold}/last.safetensors",
            sidecar="<results>/refit/train/model={model}/fold={fold}/model.json",
            history="<results>/refit/train/model={model}/fold={fold}/history.parquet",
            timing="<results>/refit/timings/train/model={model}/fold={fold}.json",
        log:
            "<logs>/refit/train/model={model}/fold={fold}.log",
        benchmark:
            "<benchmarks>/refit/train/model={model}/fold={fold}.tsv"
        params:
            below="refit",
            pretrained_sha256=lambda w: expected_digest(recipe(w).named_weights),
            seed=CONFIG.refit_seed,
            numeric=learnt_factor(),
            code=digest("train_member.py"),

    use rule train as curve_train with:
        input:
            pixels=lambda w: pixels(recipe(w), "train"),
            folds="<results>/refit/curve/share={share}/folds.parquet",
            certificate="<results>/refit/curve/share={share}/certificate.json",
            classes="<results>/data/classes.json",
            pretrained=lambda w: own_weights(recipe(w).pretrained_file),
            manifest=lambda w: (
                "<results>/data/manifest/split=train/manifest.parquet"
                if recipe(w).labels.active
                else []
            ),
            metadata=lambda w: metadata_tables(recipe(w), "train"),
            metric=lambda w: own_metric(recipe(w).best_by),
        output:
            weights="<results>/refit/curve/share={share}/train/model={model}/fold={fold}/model.safetensors",
            last="<results>/refit/curve/share={share}/train/model={model}/fold={fold}/last.safetensors",
            sidecar="<results>/refit/curve/share={share}/train/model={model}/fold={fold}/model.json",
            history="<results>/refit/curve/share={share}/train/model={model}/fold={fold}/history.parquet",
            timing="<results>/refit/curve/share={share}/timings/train/model={model}/fold={fold}.json",
        log:
            "<logs>/refit/curve/share={share}/train/model={model}/fold={fold}.log",
        benchmark:
            "<benchmarks>/refit/curve/share={share}/train/model={model}/fold={fold}.tsv"
        params:
            below=lambda w: f"refit/curve/share={w.share}",
            pretrained_sha256=lambda w: expected_digest(recipe(w).named_weights),
            recipe=lambda w: RECIPES[w.model],
            seed=CONFIG.refit_seed,
            numeric=learnt_factor(),
            own_metric=lambda w: own_metric_digest(recipe(w).best_by),
            code=digest("train_member.py"),

    use rule predict_member as curve_oof with:
        input:
            unpack(predicted_images("oof")),
            weights="<results>/refit/curve/share={share}/train/model={model}/fold={fold}/model.safetensors",
            sidecar="<results>/refit/curve/share={share}/train/model={model}/fold={fold}/model.json",
            folds="<results>/refit/curve/share={share}/folds.parquet",
            certificate="<results>/refit/curve/share={share}/certificate.json",
            classes="<results>/data/classes.json",
        output:
            predictions=[
                "<results>/refit/curve/share={share}/oof/model={model}/fold={fold}/predictions.parquet",
            ],
            timings=[
                "<results>/refit/curve/share={share}/timings/oof/model={model}/fold={fold}.json",
            ],
        log:
            "<logs>/refit/curve/share={share}/oof/model={model}/fold={fold}.log",
        benchmark:
            "<benchmarks>/refit/curve/share={share}/oof/model={model}/fold={fold}.tsv"
        params:
            parts=["oof"],
            views=CONFIG.predict.views,
            code=digest("predict_member.py"),

    use rule predict_member as refit_test with:
        input:
            unpack(predicted_images("test")),
            weights="<results>/refit/train/model={model}/fold={fold}/model.safetensors",
            sidecar="<results>/refit/train/model={model}/fold={fold}/model.json",
            folds="<results>/refit/folds.parquet",
            certificate="<results>/refit/certificate.json",
            classes="<results>/data/classes.json",
        output:
            predictions=[
                "<results>/refit/test/model={model}/fold={fold}/predictions.parquet",
            ],
            timings=["<results>/refit/timings/test/model={model}/fold={fold}.json"],
        log:
            "<logs>/refit/test/model={model}/fold={fold}.log",
        benchmark:
            "<benchmarks>/refit/test/model={model}/fold={fold}.tsv"
        params:
            parts=["test"],
            views=CONFIG.predict.views,
            code=digest("predict_member.py"),

    if CONFIG.refit.curve:

        rule refit_forecast:
            """Forecast the score of the networks of all groups from a learning curve over groups."""
            input:
                oof=expand(
                    "<results>/oof/model={model}/fold={fold}/predictions.parquet",
                    model=CONFIG.refitted,
                    fold=CONFIG.curve_folds,
                ),
                curve=expand(
                    "<results>/refit/curve/share={share}/oof/model={model}/fold={fold}/predictions.parquet",
                    share=CONFIG.curve_shares,
                    model=CONFIG.refitted,
                    fold=CONFIG.curve_folds,
                ),
                curve_folds=expand(
                    "<results>/refit/curve/share={share}/folds.parquet",
                    share=CONFIG.curve_shares,
                ),
                curve_certificates=expand(
                    "<results>/refit/curve/share={share}/certificate.json",
                    share=CONFIG.curve_shares,
                ),
                folds="<results>/folds/folds.parquet",
                certificate="<results>/folds/certificate.json",
                classes="<results>/data/classes.json",
                test_manifest=test_manifest(),
                metric=own_metric(CONFIG.metric),
            output:
                forecast="<results>/refit/forecast.json",
                curve="<results>/refit/curve.csv",
            log:
                "<logs>/refit/forecast.log",
            benchmark:
                "<benchmarks>/refit/forecast.tsv"
            conda:
                "../../envs/foldvote.yaml"
            params:
                folds=CONFIG.curve_folds,
                seeds=CONFIG.refit.seeds,
                chooses_epochs=[
                    m for m in CONFIG.refitted if CONFIG.models[m].chooses_epochs
                ],
                draws=CONFIG.vote.draws,
                seed=CONFIG.seed,
                metric=CONFIG.metric,
                own_metric=own_metric_digest(CONFIG.metric),
                code=digest("forecast_refit.py"),
            script:
                "../scripts/forecast_refit.py"

    if CONFIG.has_test:

        rule refit_vote:
            """Average the networks of all groups on the test images, alone and with the vote of the folds."""
            input:
                refit=refit_files("test", "predictions.parquet"),
                test="<results>/ensemble/test.parquet",
                weights="<results>/ensemble/weights.json",
                folds="<results>/refit/folds.parquet",
                certificate="<results>/refit/certificate.json",
                classes="<results>/data/classes.json",
                manifest=test_manifest(),
                answers=own(CONFIG.image_answers_path),
                metric=own_metric(CONFIG.metric),
            output:
                refit="<results>/refit/test.parquet",
                vote="<results>/refit/vote.parquet",
                scores=(
                    "<results>/refit/test_scores.json"
                    if CONFIG.image_answers_path
                    else []
                ),
            log:
                "<logs>/refit/vote.log",
            benchmark:
                "<benchmarks>/refit/vote.tsv"
            conda:
                "../../envs/foldvote.yaml"
            params:
                voters=CONFIG.whole_voters,
                submission=canonical(CONFIG.submission.columns),
                draws=CONFIG.vote.draws,
                seed=CONFIG.seed,
                metric=CONFIG.metric,
                own_metric=own_metric_digest(CONFIG.metric),
                code=digest("join_refit.py"),
            script:
                "../scripts/join_refit.py"

        use rule submission as refit_submission with:
            input:
                votes=lambda w: refit_answers(w.joint),
                classes="<results>/data/classes.json",
                sample=own(CONFIG.sample_path),
            output:
                submission="<results>/submission/{joint}.csv",
            log:
                "<logs>/submission/{joint}.log",

        if CONFIG.submission.unit == "group":

            use rule row_groups as refit_groups with:
                input:
                    votes=lambda w: f"<results>/refit/{REFIT_VOTES[w.joint]}.parquet",
                    manifest=test_manifest(),
                    scores="<results>/ensemble/group_scores.json",
                    classes="<results>/data/classes.json",
                output:
                    groups="<results>/refit/groups/{joint}.parquet",
                log:
                    "<logs>/refit/groups/{joint}.log",
