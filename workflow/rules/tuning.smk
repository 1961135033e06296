"""Hyperparameter search: Optuna trials, trained by parallel jobs.

Reads the inputs of training; writes tune/. The journal with all trials and the training states of interrupted trials
are not outputs, because Snakemake deletes the outputs of failed jobs. No other target needs a search: ask for `tune`.
"""

if IS_MAIN and CONFIG.tune is None and "tune" in sys.argv[1:]:
    sys.exit(
        f"{CONFIG_FILE}: has no section `tune`, which says what is searched; "
        "take config/tune.yaml as an example, or see docs/tuning.md"
    )

if CONFIG.tune is not None:

    rule tune_worker:
        """Train trials of a search, one after another, until the wanted number is finished."""
        input:
            pixels=searched_pixels("train"),
            folds="<results>/folds/folds.parquet",
            certificate="<results>/folds/certificate.json",
            classes="<results>/data/classes.json",
            pretrained=[own_weights(path) for path in searched_weights()],
            manifest=(
                "<results>/data/manifest/split=train/manifest.parquet"
                if any(r.labels.active for r in searched("labels"))
                else []
            ),
            pseudo=expand(
                "<results>/test/model={model}/fold={fold}/predictions.parquet",
                model=first_round(),
                fold=CONFIG.searched_folds,
            ),
            pseudo_pixels=searched_pixels("test") if first_round() else [],
            teachers=expand(
                "<results>/teach/model={model}/fold={fold}/predictions.parquet",
                model=teachers(),
                fold=CONFIG.searched_folds,
            ),
            metric=own_metric(*search_metrics()),
            metadata=searched_metadata(),
        output:
            done="<results>/tune/workers/worker={worker}.json",
        log:
            "<logs>/tune/worker={worker}.log",
        benchmark:
            "<benchmarks>/tune/worker={worker}.tsv"
        wildcard_constraints:
            worker=r"\d+",
        retries: 2 if workflow.is_main_process else 0
        conda:
            "../../envs/foldvote.yaml"
        threads: trial_cores
        resources:
            gpu=one_gpu,
        params:
            model=CONFIG.searched_model,
            recipe=canonical(
                CONFIG.models[CONFIG.searched_model].model_dump(mode="json")
            ),
            tune=canonical(CONFIG.tune.model_dump(mode="json")),
            folds=CONFIG.searched_folds,
            seed=CONFIG.seed,
            views=CONFIG.predict.views,
            numeric=learnt_factor(),
            pretrained=searched_weights(),
            pretrained_sha256=searched_named_weights(),
            own_metric=own_metric_digest(*search_metrics()),
            code=digest("tune_worker.py"),
        script:
            "../scripts/tune_worker.py"

    rule tune:
        """Summarise the trials of a search: a table, the best recipe to include in a configuration, and figures."""
        input:
            done=expand(
                "<results>/tune/workers/worker={worker}.json",
                worker=range(CONFIG.tune.workers),
            ),
        output:
            trials="<results>/tune/trials.parquet",
            best="<results>/tune/best.yaml",
            figures=[
                report(
                    f"<results>/tune/{name}.{kind}",
                    caption=f"../report/tune_{name}.rst",
                    category="Tuning",
                    labels={"what": name, "as": kind},
                )
                for name in ("history", "importance", "slices", "parallel")
                for kind in ("svg", "png")
            ],
        log:
            "<logs>/tune.log",
        conda:
            "../../envs/foldvote.yaml"
        params:
            code=digest("tune.py"),
        script:
            "../scripts/tune.py"
