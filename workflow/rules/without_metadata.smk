"""What members that see metadata predict of their fold as if it were missing, for the leaderboard.

Reads weights, packed images and the split; writes without_metadata/, which contains only parquet files, and timings.
"""


use rule predict_member as without_metadata with:
    input:
        unpack(predicted_images("without_metadata")),
        weights="<results>/train/model={model}/fold={fold}/model.safetensors",
        sidecar="<results>/train/model={model}/fold={fold}/model.json",
        folds="<results>/folds/folds.parquet",
        certificate="<results>/folds/certificate.json",
        classes="<results>/data/classes.json",
    output:
        predictions=[
            "<results>/without_metadata/model={model}/fold={fold}/predictions.parquet",
        ],
        timings=["<results>/timings/without_metadata/model={model}/fold={fold}.json"],
    log:
        "<logs>/without_metadata/model={model}/fold={fold}.log",
    benchmark:
        "<benchmarks>/without_metadata/model={model}/fold={fold}.tsv"
    params:
        parts=["without_metadata"],
        views=CONFIG.predict.views,
        code=digest("predict_member.py"),
