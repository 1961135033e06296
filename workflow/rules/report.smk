"""A page on the results.

Reads the results of a finished run, some images of the data folder, and the networks of one model for heatmaps; writes
report.html, report/ with the same figures (SVG) and tables (CSV), and attention/. No other target needs it: ask for
`report`.
"""


rule attention:
    """Make Grad-CAM heatmaps of one model for some validation images."""
    input:
        weights=expand(
            "<results>/train/model={model}/fold={fold}/model.safetensors",
            model=shown_model(),
            fold=FOLDS,
        ),
        sidecars=expand(
            "<results>/train/model={model}/fold={fold}/model.json",
            model=shown_model(),
            fold=FOLDS,
        ),
        pixels=shown_pixels(),
        folds="<results>/folds/folds.parquet",
        certificate="<results>/folds/certificate.json",
        classes="<results>/data/classes.json",
        votes="<results>/ensemble/oof.parquet",
    output:
        attention="<results>/attention/attention.parquet",
    log:
        "<logs>/attention.log",
    benchmark:
        "<benchmarks>/attention.tsv"
    conda:
        "../../envs/foldvote.yaml"
    threads: all_cores
    resources:
        gpu=one_gpu,
    params:
        code=digest("explain_predictions.py"),
    script:
        "../scripts/explain_predictions.py"


rule report:
    """Show a finished run on one page: scores, votes, learning curves, confusion with pictures, slices, suspects."""
    input:
        manifest="<results>/data/manifest/split=train/manifest.parquet",
        folds="<results>/folds/folds.parquet",
        certificate="<results>/folds/certificate.json",
        classes="<results>/data/classes.json",
        oof=member_files("oof", "predictions.parquet"),
        histories=member_files("train", "history.parquet"),
        sidecars=member_files("train", "model.json"),
        timings=member_timings(),
        votes="<results>/ensemble/oof.parquet",
        metrics="<results>/ensemble/metrics.json",
        weights="<results>/ensemble/weights.json",
        slices="<results>/ensemble/slices.csv",
        reliability="<results>/ensemble/reliability.csv",
        issues="<results>/ensemble/label_issues.parquet",
        leaderboard="<results>/leaderboard.csv",
        frontier="<results>/ensemble/frontier.csv",
        attention="<results>/attention/attention.parquet",
        pixels=shown_pixels(),
    output:
        page=report(
            "<results>/report.html",
            caption="../report/report.rst",
            category="Results",
            labels={"what": "report", "as": "page"},
        ),
        curves=beside_report("curves.svg", "learning_curves"),
        votes=beside_report("votes.svg", "votes"),
        confusion=beside_report("confusion.svg", "confusion"),
        reliability=beside_report("reliability.svg", "reliability"),
        slices=beside_report("slices.svg", "slices"),
        classes=beside_report("classes.svg", "classes"),
        scores=beside_report("classes.csv", "classes"),
        pairs=beside_report("pairs.csv", "pairs"),
        persons=beside_report("persons.csv", "persons"),
        losses=beside_report("losses.csv", "losses"),
    log:
        "<logs>/report.log",
    benchmark:
        "<benchmarks>/report.tsv"
    conda:
        "../../envs/foldvote.yaml"
    threads: all_cores
    params:
        root=str(CONFIG.root),
        images=canonical(CONFIG.images.model_dump(mode="json")),
        settings=lambda w: canonical(
            CONFIG.model_dump(mode="json", exclude={"runtime", "new"})
        ),
        # Shown if there is one. It is not an input, because a report must never start a search.
        search=f"{CONFIG.results}/tune/trials.parquet",
        search_digest=lambda w: digest_if_there(f"{CONFIG.results}/tune/trials.parquet"),
        code=digest("write_report.py"),
    script:
        "../scripts/write_report.py"


rule draft_corrections:
    """Draft a corrections file from the most likely label errors, for a person to review."""
    input:
        issues="<results>/ensemble/label_issues.parquet",
    output:
        draft="<results>/corrections_draft.csv",
    log:
        "<logs>/draft_corrections.log",
    conda:
        "../../envs/foldvote.yaml"
    params:
        top=50,
        # A function, because a pattern may contain what looks like a wildcard.
        data=lambda w: canonical(CONFIG.data.model_dump(mode="json")),
        code=digest("draft_corrections.py"),
    script:
        "../scripts/draft_corrections.py"
