"""Predictions of every member, for its validation fold, for the reserve and for the test images.

Reads weights, packed images and the split; writes oof/, reserve/, test/ and, for the members that teach a student,
teach/, which contain only parquet files, and timings. One script does all four.
"""


rule oof:
    """Predict the validation images of a fold with the network that was not trained on them."""
    input:
        weights="<results>/train/model={model}/fold={fold}/model.safetensors",
        sidecar="<results>/train/model={model}/fold={fold}/model.json",
        pixels=lambda w: pixels(recipe(w), "train"),
        features=lambda w: probe_features(w, "train"),
        folds="<results>/folds/folds.parquet",
        certificate="<results>/folds/certificate.json",
        classes="<results>/data/classes.json",
    output:
        predictions="<results>/oof/model={model}/fold={fold}/predictions.parquet",
        timing="<results>/timings/oof/model={model}/fold={fold}.json",
    log:
        "<logs>/oof/model={model}/fold={fold}.log",
    benchmark:
        "<benchmarks>/oof/model={model}/fold={fold}.tsv"
    conda:
        "../../envs/foldvote.yaml"
    threads: half_the_cores
    resources:
        gpu=one_gpu,
    params:
        part="oof",
        views=CONFIG.predict.views,
        code=digest("predict_member.py"),
    script:
        "../scripts/predict_member.py"


use rule oof as tta with:
    input:
        weights="<results>/train/model={model}/fold={fold}/model.safetensors",
        sidecar="<results>/train/model={model}/fold={fold}/model.json",
        pixels=lambda w: pixels(recipe(w), "test"),
        features=lambda w: probe_features(w, "test"),
        folds="<results>/folds/folds.parquet",
        certificate="<results>/folds/certificate.json",
        classes="<results>/data/classes.json",
    output:
        predictions="<results>/test/model={model}/fold={fold}/predictions.parquet",
        timing="<results>/timings/test/model={model}/fold={fold}.json",
    log:
        "<logs>/test/model={model}/fold={fold}.log",
    benchmark:
        "<benchmarks>/test/model={model}/fold={fold}.tsv"
    params:
        part="test",
        views=CONFIG.predict.views,
        code=digest("predict_member.py"),


use rule oof as reserve with:
    output:
        predictions="<results>/reserve/model={model}/fold={fold}/predictions.parquet",
        timing="<results>/timings/reserve/model={model}/fold={fold}.json",
    log:
        "<logs>/reserve/model={model}/fold={fold}.log",
    benchmark:
        "<benchmarks>/reserve/model={model}/fold={fold}.tsv"
    params:
        part="reserve",
        views=CONFIG.predict.views,
        code=digest("predict_member.py"),


# Of the very images that the member was trained on: targets of the student of the same fold, and no scores.
use rule oof as teach with:
    output:
        predictions="<results>/teach/model={model}/fold={fold}/predictions.parquet",
        timing="<results>/timings/teach/model={model}/fold={fold}.json",
    log:
        "<logs>/teach/model={model}/fold={fold}.log",
    benchmark:
        "<benchmarks>/teach/model={model}/fold={fold}.tsv"
    params:
        part="teach",
        views=CONFIG.predict.views,
        code=digest("predict_member.py"),
