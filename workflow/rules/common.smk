"""What all rules share: the checked configuration, this machine, and small functions that read them."""

import os.path
import sys
from pathlib import Path

sys.path.insert(0, f"{workflow.basedir}/workflow/scripts")

from foldvote.closing import closing_words
from foldvote.codehash import code_digest
from foldvote.config import load_config
from foldvote.errors import Refusal
from foldvote.files import canonical
from foldvote.listing import listing_digest
from foldvote.locks import announce_run, run_lock, visible_gpus


def checked_config():
    """The one configuration file (the last --configfile, else the demo's), with --config values over it."""
    file = (workflow.configfiles or [f"{workflow.basedir}/config/config.yaml"])[-1]
    try:
        return load_config(os.path.relpath(file), dict(workflow.config_settings.config))
    except Refusal as refusal:
        sys.exit(str(refusal))


CONFIG = checked_config()
config.update(CONFIG.model_dump(mode="json"))
FOLDS = range(CONFIG.folds.count)
GPUS = visible_gpus()
CORES = workflow.resource_settings.cores or 1

announce_run()


wildcard_constraints:
    split="train|test",
    part="oof|test",
    size=r"\d+x\d+",
    roi=r"[a-z0-9-]+",
    model=r"[A-Za-z0-9][A-Za-z0-9_.-]*",
    fold=r"\d+",


def digest(script):
    """Digest of a script and the library code it uses: changed code reruns the rule, a comment does not."""
    return code_digest(f"{workflow.basedir}/workflow/scripts/{script}")


def recipe(wildcards):
    """The recipe of a job's model."""
    if wildcards.model not in CONFIG.models:
        sys.exit(
            f"models: no model {wildcards.model!r}; known: {', '.join(CONFIG.models)}"
        )
    return CONFIG.models[wildcards.model]


def member_files(part, name):
    """One file of every member, such as member_files("train", "model.safetensors")."""
    return expand(
        f"<results>/{part}/model={{model}}/fold={{fold}}/{name}",
        model=list(CONFIG.models),
        fold=FOLDS,
    )


def member_timings():
    """The timings of every member: of training, OOF and test predictions."""
    parts = ["train", "oof", "test"] if CONFIG.has_test else ["train", "oof"]
    pattern = "<results>/timings/{part}/model={model}/fold={fold}.json"
    return expand(pattern, part=parts, model=list(CONFIG.models), fold=FOLDS)


def training_threads():
    """All cores for one network on the CPU; beside GPUs, each gets its share of cores to load images with."""
    offered = workflow.resource_settings.resources.get("gpu", 1) if GPUS else 1
    return max(CORES // max(int(getattr(offered, "value", offered)), 1), 1)


def begin_run():
    """Take the results folder for this run, and say what it runs on."""
    global RUN_LOCK
    try:
        RUN_LOCK = run_lock(CONFIG.results)
    except Refusal as refusal:
        sys.exit(str(refusal))
    if not GPUS:
        print(
            f"No GPU found: networks train on the CPU, with {CORES} core(s).",
            file=sys.stderr,
        )
