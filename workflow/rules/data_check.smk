"""A page on the data, before any training.

Reads the files of the data stages and some images of the data folder; writes data_check.html, data/counts.csv and
data/light/. The augmentation of each model is drawn into preview/. No network is trained; with a pretrained net the page
holds the leak check. No other target needs it: ask for `data_check` or `augment_preview`.
"""


rule light:
    """Measure brightness and colour of the packed images of a split."""
    input:
        pixels=lambda w: f"<results>/data/pixels/{measured_pixels()}/{w.split}.arrow",
    output:
        light="<results>/data/light/split={split}/light.parquet",
    log:
        "<logs>/light/split={split}.log",
    benchmark:
        "<benchmarks>/light/split={split}.tsv"
    conda:
        "../../envs/foldvote.yaml"
    params:
        code=digest("measure_images.py"),
    script:
        "../scripts/measure_images.py"


rule data_check:
    """Show the data on one page: counts, files, light, folds, persons, look-alikes, corrections, an augmented batch."""
    input:
        manifests=expand(
            "<results>/data/manifest/split={split}/manifest.parquet", split=SPLITS
        ),
        quarantines=expand(
            "<results>/data/quarantine/split={split}/quarantine.parquet", split=SPLITS
        ),
        light=expand("<results>/data/light/split={split}/light.parquet", split=SPLITS),
        folds="<results>/folds/folds.parquet",
        certificate="<results>/folds/certificate.json",
        classes="<results>/data/classes.json",
        overlap="<results>/data/overlap.json" if CONFIG.has_test else [],
        leaks="<results>/leak_check.json" if CONFIG.leak_model else [],
        preview=f"<results>/preview/model={next(iter(CONFIG.models))}.png",
    output:
        page=report(
            "<results>/data_check.html",
            caption="../report/data_check.rst",
            category="Data",
            labels={"page": "data check"},
        ),
        counts="<results>/data/counts.csv",
    log:
        "<logs>/data_check.log",
    benchmark:
        "<benchmarks>/data_check.tsv"
    conda:
        "../../envs/foldvote.yaml"
    threads: all_cores
    params:
        splits=SPLITS,
        root=str(CONFIG.root),
        external=canonical(CONFIG.external_folders("train")),
        images=canonical(CONFIG.images.model_dump(mode="json")),
        numeric=numeric_factor(),
        model=next(iter(CONFIG.models)),
        seed=CONFIG.seed,
        code=digest("check_data.py"),
    script:
        "../scripts/check_data.py"


rule preview:
    """Draw the first training batch of fold 0 next to the original images."""
    input:
        pixels=lambda w: pixels(recipe(w), "train"),
        folds="<results>/folds/folds.parquet",
        certificate="<results>/folds/certificate.json",
        classes="<results>/data/classes.json",
    output:
        preview="<results>/preview/model={model}.png",
    log:
        "<logs>/preview/model={model}.log",
    benchmark:
        "<benchmarks>/preview/model={model}.tsv"
    conda:
        "../../envs/foldvote.yaml"
    params:
        recipe=lambda w: RECIPES[w.model],
        seed=CONFIG.seed,
        fold=0,
        code=digest("preview_augmentation.py"),
    script:
        "../scripts/preview_augmentation.py"


# The augmentation of all models, to check it before hours of training.
rule augment_preview:
    input:
        expand("<results>/preview/model={model}.png", model=list(CONFIG.models)),
