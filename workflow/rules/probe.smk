"""Probes: features of frozen pretrained nets, regressions on them as members, and the leak check on the same features.

Reads pretrained weights, packed images and the split; writes features/, train/model=<m>/fold=<k>/ of the models with
`kind: probe`, timings, and leak_check.json. Features are computed once for all folds and models of the same net,
weights, size and region.
"""

if IS_MAIN and CONFIG.leak_model is None and "leak_check" in sys.argv[1:]:
    sys.exit(
        f"{CONFIG_FILE}: leak_check: null means none; drop it"
        if ASKED.leak_check is None
        else (
            f"{CONFIG.results}/plan.json: leaves out the model of leak_check; raise runtime.max_hours"
            if CONFIG.leak_check is None
            else f"{CONFIG_FILE}: leak_check needs a model with pretrained weights, and none has; add one, such as models: "
            "{probe: {kind: probe, net: tf_efficientnet_lite0, pretrained: "
            "resources/weights/tf_efficientnet_lite0.safetensors}}, whose weights come with a Python package"
        )
    )


rule features:
    """Compute the features of the packed images of a split, with a pretrained net that is not trained."""
    input:
        pretrained=lambda w: own_weights(featured(w)[0].pretrained_file),
        pixels="<results>/data/pixels/size={size}/roi={roi}/{split}.arrow",
    output:
        features="<results>/features/net={net}/weights={weights}/size={size}/roi={roi}/{split}.parquet",
        timing="<results>/features/net={net}/weights={weights}/size={size}/roi={roi}/{split}.json",
    log:
        "<logs>/features/net={net}/weights={weights}/size={size}/roi={roi}/{split}.log",
    benchmark:
        "<benchmarks>/features/net={net}/weights={weights}/size={size}/roi={roi}/{split}.tsv"
    wildcard_constraints:
        net="[A-Za-z0-9_.-]+",
        weights="[A-Za-z0-9_.-]+",
    conda:
        "../../envs/foldvote.yaml"
    threads: all_cores
    resources:
        gpu=one_gpu,
    params:
        views=feature_views,
        weights=lambda w: featured(w)[0].named_weights or "",
        # Weights by name are no input: their digest decides, wherever the file lies.
        pretrained_sha256=lambda w: expected_digest(featured(w)[0].named_weights),
        code=digest("compute_features.py"),
    script:
        "../scripts/compute_features.py"


if CONFIG.probes:

    ruleorder: probe > train

    rule probe:
        """Fit the head of one fold on the features of a frozen net."""
        input:
            pixels=lambda w: pixels(member_recipe(w), "train"),
            pretrained=lambda w: own_weights(recipe(w).pretrained_file),
            features=lambda w: feature_files(recipe(w), "train")[0],
            folds="<results>/folds/folds.parquet",
            certificate="<results>/folds/certificate.json",
            classes="<results>/data/classes.json",
        output:
            weights="<results>/train/model={model}/fold={fold}/model.safetensors",
            last="<results>/train/model={model}/fold={fold}/last.safetensors",
            sidecar="<results>/train/model={model}/fold={fold}/model.json",
            history="<results>/train/model={model}/fold={fold}/history.parquet",
            timing="<results>/timings/train/model={model}/fold={fold}.json",
        log:
            "<logs>/train/model={model}/fold={fold}.log",
        benchmark:
            "<benchmarks>/train/model={model}/fold={fold}.tsv"
        wildcard_constraints:
            model="|".join(map(re.escape, CONFIG.probes)),
        conda:
            "../../envs/foldvote.yaml"
        params:
            recipe=lambda w: RECIPES[w.model],
            pretrained_sha256=lambda w: expected_digest(recipe(w).named_weights),
            seed=CONFIG.seed,
            numeric=learnt_factor(),
            code=digest("fit_probe.py"),
        script:
            "../scripts/fit_probe.py"


if CONFIG.leak_model is not None:

    rule leak_check:
        """Score one probe with several kinds of splits, on drawn labels, and on telling train from test images."""
        input:
            features=feature_files(CONFIG.leak_model, "train")[0],
            test=(
                feature_files(CONFIG.leak_model, "test")[0] if CONFIG.has_test else []
            ),
            manifest="<results>/data/manifest/split=train/manifest.parquet",
            test_manifest=test_manifest(),
            folds="<results>/folds/folds.parquet",
            certificate="<results>/folds/certificate.json",
            classes="<results>/data/classes.json",
            tables=leak_tables(),
        output:
            check="<results>/leak_check.json",
        log:
            "<logs>/leak_check.log",
        benchmark:
            "<benchmarks>/leak_check.tsv"
        conda:
            "../../envs/foldvote.yaml"
        params:
            columns=CONFIG.leak_check.columns,
            # A function, because a pattern may contain what looks like a wildcard.
            data=lambda w: canonical(CONFIG.data.model_dump(mode="json")),
            seed=CONFIG.seed,
            code=digest("check_leaks.py"),
        script:
            "../scripts/check_leaks.py"
