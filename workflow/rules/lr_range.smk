"""Which learning rate suits a model: a short training in which it grows from step to step.

Reads what a training reads; writes lr_range/. No other target needs it: ask for `lr_range`.
"""


rule lr_range_test:
    """Measure the training loss while the learning rate grows from 1e-7 to 10."""
    input:
        unpack(recipe_inputs),
        folds="<results>/folds/folds.parquet",
        certificate="<results>/folds/certificate.json",
        classes="<results>/data/classes.json",
    output:
        table="<results>/lr_range/model={model}/fold={fold}/losses.csv",
        figure="<results>/lr_range/model={model}/fold={fold}/losses.png",
    log:
        "<logs>/lr_range/model={model}/fold={fold}.log",
    benchmark:
        "<benchmarks>/lr_range/model={model}/fold={fold}.tsv"
    conda:
        "../../envs/foldvote.yaml"
    threads: training_cores
    resources:
        gpu=one_gpu,
    params:
        recipe=lambda w: RECIPES[w.model],
        # Weights by name are no input: their digest decides, wherever the file lies.
        pretrained_sha256=lambda w: expected_digest(recipe(w).named_weights),
        seed=CONFIG.seed,
        numeric=learnt_factor(),
        code=digest("measure_lr_range.py"),
    script:
        "../scripts/measure_lr_range.py"


# Of all models, on the training images of the first fold.
rule lr_range:
    input:
        expand(
            "<results>/lr_range/model={model}/fold=0/losses.png",
            model=list(CONFIG.models),
        ),
