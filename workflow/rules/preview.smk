"""What the augmentation of each model does, as a picture.

Reads the packed training images and the split; writes preview/. Nothing else needs it: ask for `augment_preview`.
"""


rule preview:
    """Draw the first training batch of fold 0 beside the images that it was made from."""
    input:
        pixels=lambda w: f"<results>/data/pixels/size={recipe(w).size}/roi={recipe(w).roi}/train.arrow",
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
        recipe=lambda w: canonical(recipe(w).model_dump(mode="json")),
        seed=CONFIG.seed,
        fold=0,
        code=digest("preview_augmentation.py"),
    script:
        "../scripts/preview_augmentation.py"


# The augmentation of all models, before hours of training.
rule augment_preview:
    input:
        expand("<results>/preview/model={model}.png", model=list(CONFIG.models)),
