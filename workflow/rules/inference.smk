"""Predictions of every member, for its validation fold, for the reserve and for the test images.

Reads weights, packed images and the split; writes oof/, reserve/, test/ and, for the members that teach a student,
teach/, which contain only parquet files, and timings. One job of a member makes all that the vote needs of it, so that
its network is loaded once; what it teaches has a job of its own. One script does both.
"""


rule predict_member:
    """Predict the fold that a network was not trained on, the reserve and the test images, as far as there are any."""
    input:
        unpack(predicted_images(*predicted_parts())),
        weights="<results>/train/model={model}/fold={fold}/model.safetensors",
        sidecar="<results>/train/model={model}/fold={fold}/model.json",
        folds="<results>/folds/folds.parquet",
        certificate="<results>/folds/certificate.json",
        classes="<results>/data/classes.json",
    output:
        predictions=expand(
            "<results>/{part}/model={{model}}/fold={{fold}}/predictions.parquet",
            part=predicted_parts(),
        ),
        timings=expand(
            "<results>/timings/{part}/model={{model}}/fold={{fold}}.json",
            part=predicted_parts(),
        ),
    log:
        "<logs>/predict_member/model={model}/fold={fold}.log",
    benchmark:
        "<benchmarks>/predict_member/model={model}/fold={fold}.tsv"
    conda:
        "../../envs/foldvote.yaml"
    threads: half_the_cores
    resources:
        gpu=one_gpu,
    params:
        parts=predicted_parts(),
        views=CONFIG.predict.views,
        code=digest("predict_member.py"),
    script:
        "../scripts/predict_member.py"


# Of the very images that the member was trained on: targets of the student of the same fold, and no scores.
use rule predict_member as teach with:
    input:
        unpack(predicted_images("teach")),
        weights="<results>/train/model={model}/fold={fold}/model.safetensors",
        sidecar="<results>/train/model={model}/fold={fold}/model.json",
        folds="<results>/folds/folds.parquet",
        certificate="<results>/folds/certificate.json",
        classes="<results>/data/classes.json",
    output:
        predictions=[
            "<results>/teach/model={model}/fold={fold}/predictions.parquet",
        ],
        timings=["<results>/timings/teach/model={model}/fold={fold}.json"],
    log:
        "<logs>/teach/model={model}/fold={fold}.log",
    benchmark:
        "<benchmarks>/teach/model={model}/fold={fold}.tsv"
    params:
        parts=["teach"],
        views=CONFIG.predict.views,
        code=digest("predict_member.py"),
