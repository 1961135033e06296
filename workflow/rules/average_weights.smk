"""One network from the K members of a model: their weights averaged.

Reads members, their predictions of the reserve and the packed training images; writes average/. Only a reserve can score
an average, which knows all folds. No other target needs it: ask for `average_weights`.
"""

if (
    IS_MAIN
    and "average_weights" in sys.argv[1:]
    and (faults := metadata_refusals("average_weights", CONFIG.models))
):
    sys.exit("\n".join(faults))

if (
    IS_MAIN
    and "average_weights" in sys.argv[1:]
    and not (CONFIG.folds.reserve and len(FOLDS) > 1)
):
    sys.exit(
        f"{CONFIG_FILE}: average_weights: needs folds.reserve and two folds or more, because an average of all members has "
        "learnt from every fold and only groups outside of them can score it; set folds.reserve, such as 0.1"
    )

if CONFIG.folds.reserve:

    rule average:
        """Average the weights of a model's members, and score the average on the reserve."""
        input:
            weights=members_of("train", "model.safetensors"),
            sidecars=members_of("train", "model.json"),
            reserve=members_of("reserve", "predictions.parquet"),
            pixels=lambda w: pixels(recipe(w), "train"),
            folds="<results>/folds/folds.parquet",
            certificate="<results>/folds/certificate.json",
            classes="<results>/data/classes.json",
        output:
            weights="<results>/average/model={model}/model.safetensors",
            greedy="<results>/average/model={model}/greedy.safetensors",
            sidecar="<results>/average/model={model}/model.json",
            scores="<results>/average/model={model}/scores.json",
        log:
            "<logs>/average/model={model}.log",
        benchmark:
            "<benchmarks>/average/model={model}.tsv"
        conda:
            "../../envs/foldvote.yaml"
        threads: half_the_cores
        resources:
            gpu=one_gpu,
        params:
            views=CONFIG.predict.views,
            score=CONFIG.vote.score,
            draws=CONFIG.vote.draws,
            seed=CONFIG.seed,
            code=digest("average_weights.py"),
        script:
            "../scripts/average_weights.py"

    # One network from the members of each model.
    rule average_weights:
        input:
            expand(
                "<results>/average/model={model}/scores.json",
                model=list(CONFIG.models),
            ),
