"""One network per model and fold.

Reads the packed training images and the split; writes train/model=<m>/fold=<k>/ and a timing. The state from which an
interrupted training resumes is in resume/ (below runtime.state_dir). It is not an output, because Snakemake deletes the
outputs of failed jobs.
"""


rule train:
    """Train the network of one fold."""
    input:
        # One function and not one for each input, because Snakemake calls them for every member at every start.
        unpack(recipe_inputs),
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
    # A Snakemake process that a cluster started for a single job must not retry: the process that sent the job does so.
    retries: 2 if workflow.is_main_process else 0
    conda:
        "../../envs/foldvote.yaml"
    threads: training_cores
    resources:
        gpu=gpus_of_a_member,
    params:
        recipe=lambda w: RECIPES[w.model],
        # Weights by name are no input: their digest decides, wherever the file lies.
        pretrained_sha256=lambda w: expected_digest(recipe(w).named_weights),
        seed=CONFIG.seed,
        numeric=learnt_factor(),
        own_metric=lambda w: own_metric_digest(recipe(w).best_by),
        code=digest("train_member.py"),
    script:
        "../scripts/train_member.py"
