"""The folds and their certificate.

Reads the training manifest, and the user's own folds if given; writes folds/folds.parquet,
folds/certificate.json and data/classes.json.
"""


rule folds:
    """Split persons into folds, balanced over strata, and certify the split."""
    input:
        manifest="<results>/data/manifest/split=train/manifest.parquet",
        own=own(CONFIG.folds.file),
    output:
        folds="<results>/folds/folds.parquet",
        certificate="<results>/folds/certificate.json",
        classes="<results>/data/classes.json",
    log:
        "<logs>/folds.log",
    benchmark:
        "<benchmarks>/folds.tsv"
    conda:
        "../../envs/foldvote.yaml"
    params:
        settings=canonical(CONFIG.folds.model_dump(mode="json")),
        seed=CONFIG.seed,
        code=digest("make_folds.py"),
    script:
        "../scripts/make_folds.py"
