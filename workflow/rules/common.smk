"""What all rules share: the checked configuration and small functions that read it."""

import os.path
import sys
from pathlib import Path

sys.path.insert(0, f"{workflow.basedir}/workflow/scripts")

from foldvote.runtime.code_digest import code_digest
from foldvote.config.experiment import load_config
from foldvote.commands.doctor import run_doctor
from foldvote.errors import UserError
from foldvote.io.files import canonical, sha256_file
from foldvote.data.file_listing import listing_digest
from foldvote.runtime.gpus import visible_gpus
from foldvote.runtime.locks import announce_run
from foldvote.commands.dry_run import tell_plan
from foldvote.config.entry_names import entry_members
from foldvote.commands.session import (
    UNPACKED,
    begin_run,
    check_files,
    end_of_run_summary,
    profile_options,
    prepare_run,
)

# The one configuration file: the last --configfile, else the demo's.
CONFIG_FILE = os.path.relpath(
    (workflow.configfiles or [f"{workflow.basedir}/config/config.yaml"])[-1]
)


def configured():
    """The checked configuration, with --config values over the file's."""
    return load_config(CONFIG_FILE, dict(workflow.config_settings.config))


def checked_config():
    """The configuration, if it and the files that it names can be used."""
    try:
        checked = configured()
        check_files(checked)
        return checked
    except UserError as error:
        sys.exit(str(error))


def answer(told):
    """Tell the lines of an answer and end with its exit code."""
    print(told[0])
    sys.exit(told[1])


# `snakemake doctor`, `next` and `leaderboard` are no rules: they answer, and make nothing.
ASKED = sys.argv[1:] if workflow.is_main_process else []
if "doctor" in ASKED:
    answer(run_doctor(Path(workflow.basedir), CONFIG_FILE, configured))
if "leaderboard" in ASKED:
    # Imports pandas, so only where it is asked for.
    from foldvote.commands.compare_runs import asked_folders, compare_runs

    folders = asked_folders(ASKED, "leaderboard")
    answer(compare_runs(folders, lambda: configured().results))

CONFIG = checked_config()
config.update(CONFIG.model_dump(mode="json"))
FOLDS = range(CONFIG.folds.count)
SPLITS = ["train", "test"] if CONFIG.has_test else ["train"]
GPUS = visible_gpus()
CORES = workflow.resource_settings.cores or 1

if "next" in ASKED:
    arguments = [text for text in ASKED if text != "next"]
    answer(tell_plan(arguments, CONFIG, workflow.resource_settings.cores))

announce_run()
if workflow.is_main_process:
    prepare_run(CONFIG)


wildcard_constraints:
    split="train|test",
    part="oof|test",
    size=r"\d+x\d+",
    roi=r"[a-z0-9.-]+",
    model=r"[A-Za-z0-9][A-Za-z0-9_.-]*",
    fold=r"\d+",
    row=r"vote=[a-z_+]+|model=[A-Za-z0-9][A-Za-z0-9_.-]*(/fold=\d+)?",


def digest(script):
    """Digest of a script and the library code it uses: changed code reruns the rule, a comment does not."""
    return code_digest(f"{workflow.basedir}/workflow/scripts/{script}")


def digest_if_there(path):
    """Digest of a file that a rule only looks at where it is there; nothing where it is not."""
    return sha256_file(path)[:16] if os.path.isfile(path) else ""


def recipe(wildcards):
    """The recipe of a job's model."""
    if wildcards.model not in CONFIG.models:
        sys.exit(
            f"models: no model {wildcards.model!r}; known: {', '.join(CONFIG.models)}"
        )
    return CONFIG.models[wildcards.model]


def numeric_factor(without=frozenset()):
    """The factor with a number behind its levels, as JSON; null where there is none."""
    factor = CONFIG.data.numeric_factor
    return canonical(factor and factor.model_dump(mode="json", exclude=set(without)))


def learnt_factor():
    """The same as far as training depends on it: not on how scores by number are shown."""
    return numeric_factor(without=("detail", "unit"))


def own(path):
    """A file of the user's: read where it lies, also where a run keeps its files in a storage such as S3."""
    return local(str(path)) if path else []


def own_weights(path):
    """Pretrained weights: the user's, or those that a rule unpacks."""
    return path if path in UNPACKED else own(path)


def stage_files(split):
    """What is ready before any network: the manifest, the packed images, and for training images the folds."""
    packed = sorted({f"size={m.size}/roi={m.roi}" for m in CONFIG.models.values()})
    proof = ["<results>/folds/certificate.json"] if split == "train" else []
    manifest = f"<results>/data/manifest/split={split}/manifest.parquet"
    return [
        manifest,
        *proof,
        *(f"<results>/data/pixels/{name}/{split}.arrow" for name in packed),
    ]


def measured_pixels():
    """The packed images that light is measured on: of whole images where some model has them, else of any region."""
    packed = {
        f"size={m.size}/roi={m.roi}": m.roi != "none" for m in CONFIG.models.values()
    }
    return min(packed, key=packed.get)


def member_files(part, name):
    """One file of every member, such as member_files("train", "model.safetensors")."""
    return expand(
        f"<results>/{part}/model={{model}}/fold={{fold}}/{name}",
        model=list(CONFIG.models),
        fold=FOLDS,
    )


def row_tests(row):
    """The test predictions that a row of the leaderboard is made of."""
    try:
        members = entry_members(row, CONFIG.models, len(FOLDS))
    except UserError as error:
        sys.exit(str(error))
    return [
        f"<results>/test/model={model}/fold={fold}/predictions.parquet"
        for model, fold in members
    ]


def member_timings():
    """The timings of every member: of training, OOF and test predictions."""
    parts = ["train", "oof", "test"] if CONFIG.has_test else ["train", "oof"]
    pattern = "<results>/timings/{part}/model={model}/fold={fold}.json"
    return expand(pattern, part=parts, model=list(CONFIG.models), fold=FOLDS)


def shown_model():
    """The model whose networks are asked what they look at: the first that learns whole classes, else the first."""
    whole = [name for name, model in CONFIG.models.items() if not model.factors]
    return [*whole, *CONFIG.models][0]


def shown_pixels():
    """The packed training images of that model."""
    model = CONFIG.models[shown_model()]
    return f"<results>/data/pixels/size={model.size}/roi={model.roi}/train.arrow"


def beside_report(name, caption):
    """A figure or table beside the page, marked for Snakemake's own report."""
    return report(
        f"<results>/report/{name}",
        caption=f"../report/{caption}.rst",
        category="Results",
        labels={"what": caption.replace("_", " "), "as": name.rpartition(".")[2]},
    )


def searched(*roots):
    """Recipes that the search can come to by some keys."""
    return CONFIG.searched_recipes(*roots).values()


def searched_pixels(split):
    """The packed images of every size and region that the search can come to."""
    packed = {f"size={r.size}/roi={r.roi}" for r in searched("size", "roi")}
    return [f"<results>/data/pixels/{name}/{split}.arrow" for name in sorted(packed)]


def searched_weights():
    """The pretrained weights that the search can come to."""
    return sorted({r.pretrained for r in searched("pretrained") if r.pretrained})


def first_round():
    """Models whose test predictions a trial may learn from."""
    return sorted({name for r in searched("pseudo") for name in r.first_round})
