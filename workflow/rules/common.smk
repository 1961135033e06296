"""Shared by all rules: the checked configuration and small functions that read it."""

import os.path
import re
import sys
import time
from pathlib import Path

# Relative to this file and not to the main Snakefile, because another workflow may use this one as a module.
SCRIPTS = f"{workflow.current_basedir.get_path_or_uri(secret_free=True)}/../scripts"
sys.path.insert(0, SCRIPTS)

from foldvote.commands.session import (
    begin_run,
    check_before_jobs,
    end_of_run_summary,
    let_threads_sleep,
    prepare_run,
    profile_options,
    read_configuration,
    answer_old_spelling,
    use_library,
)
from foldvote.commands.planned_run import plan_before_training, planned_configuration
from foldvote.config.entry_names import check_fold
from foldvote.config.model_relations import metadata_refusals
from foldvote.config.named_weights import UNPACKED, expected_digest
from foldvote.config.run_plan import needs_of, plan_identity
from foldvote.errors import UserError
from foldvote.io.files import canonical, sha256_file
from foldvote.runtime.code_digest import code_digests
from foldvote.runtime.garbage import collect_garbage_rarely
from foldvote.runtime.gpus import visible_gpus
from foldvote.runtime.locks import announce_run

use_library(SCRIPTS)
let_threads_sleep()
collect_garbage_rarely()
# Whether this is the main workflow and not a module: only the main one answers commands and locks the results folder.
IS_MAIN = workflow.modifier.namespace is None
if IS_MAIN and workflow.is_main_process:
    answer_old_spelling(sys.argv[1:])

# The configuration file: the last --configfile, else that of the demo. A module uses what `module: config:` passes.
CONFIG_FILE = os.path.relpath(
    (workflow.configfiles or [f"{SCRIPTS}/../../config/config.yaml"])[-1]
)
ASKED = read_configuration(
    CONFIG_FILE if IS_MAIN else None,
    dict(workflow.config_settings.config) if IS_MAIN else dict(config),
)
# With runtime.max_hours what the plan leaves of it, once there is a plan.
CONFIG, PLAN = planned_configuration(ASKED)
config.update(CONFIG.model_dump(mode="json"), plan=PLAN, run_started=time.time())
RECIPES = {
    name: canonical(one.definite.model_dump(mode="json"))
    for name, one in CONFIG.models.items()
}
FOLDS = range(CONFIG.folds.count)
SPLITS = ["train", "test"] if CONFIG.has_test else ["train"]
DIGESTS = code_digests(SCRIPTS, ".snakemake/foldvote_code.json")
GPUS = visible_gpus()
CORES = workflow.resource_settings.cores or 1

announce_run()
if IS_MAIN and workflow.is_main_process:
    prepare_run(CONFIG)


wildcard_constraints:
    split="train|test",
    part="oof|test",
    size=r"\d+x\d+",
    roi=r"[a-z0-9.-]+",
    fit="(/fit=(pad|crop))?",
    model=r"[A-Za-z0-9][A-Za-z0-9_.-]*",
    fold=r"\d+",
    row=r"vote=[a-z_+]+|model=[A-Za-z0-9][A-Za-z0-9_.-]*(/fold=\d+)?",


def digest(script):
    """Digest of a script and the library code it uses: changed code reruns the rule, a comment does not."""
    return DIGESTS[script]


def recipe(wildcards):
    """The recipe of the model of a job."""
    if wildcards.model not in CONFIG.models:
        sys.exit(
            f"models: no model {wildcards.model!r}; known: {', '.join(CONFIG.models)}"
        )
    return CONFIG.models[wildcards.model]


def member_recipe(wildcards):
    """The recipe of the model of a member, that is, of one of the folds."""
    found, fold = recipe(wildcards), int(wildcards.fold)
    try:
        check_fold(f"model={wildcards.model}/fold={fold}", fold, len(FOLDS))
    except UserError as error:
        sys.exit(str(error))
    return found


def own(path):
    """A file of the user: read from its own path, even if the run keeps its files in a storage such as S3."""
    return local(str(path)) if path else []


def own_weights(path):
    """Pretrained weights: a file of the user, or one that a rule unpacks."""
    return path if path in UNPACKED else own(path)
