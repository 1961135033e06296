"""Input files of rules as functions of the configuration, and parameters that several rules share."""

from foldvote.config.ensemble import OFFSETS
from foldvote.config.entry_names import check_method, entry_guests, entry_members
from foldvote.config.run_plan import PlannedModel


def packed_images(split, recipes):
    """The packed images of a split, for every size, region and fit of the given recipes."""
    packed = sorted({one.packed.folder for one in recipes})
    return [f"<results>/data/pixels/{name}/{split}.arrow" for name in packed]


def pixels(recipe, split):
    """The packed images of a split that a recipe trains on or predicts."""
    return f"<results>/data/pixels/{recipe.packed.folder}/{split}.arrow"


def feature_files(recipe, split):
    """The features of a split that a recipe's pretrained net makes, and how long they took."""
    of = recipe.definite
    folder = f"<results>/features/net={of.net}/weights={of.weights_folder}/size={of.size}/roi={of.roi}"
    return [f"{folder}/{split}.parquet", f"{folder}/{split}.json"]


def predicted_images(*parts):
    """The packed images of each part that a member predicts and, for a probe, their features, as named inputs."""
    splits = ["test" if part == "test" else "train" for part in parts]

    def inputs(wildcards):
        wanted = recipe(wildcards)
        made = [feature_files(wanted, split) for split in splits]
        made = made if wanted.kind == "probe" else []
        hidden = parts == ("without_metadata",)
        return {
            "pixels": [pixels(wanted, split) for split in splits],
            "features": [features for features, _ in made],
            "feature_timings": [timing for _, timing in made],
            "metadata": [] if hidden else metadata_tables(wanted, *splits),
        }

    return inputs


def featured(wildcards):
    """The recipe whose pretrained net makes the features of a job, and whether a model predicts from them."""
    key = (wildcards.net, wildcards.weights, wildcards.size, wildcards.roi)
    pretrained = [one.definite for one in CONFIG.models.values() if one.weights]
    alike = [
        one
        for one in pretrained
        if (one.net, one.weights_folder, one.size, one.roi) == key
    ]
    if not alike:
        sys.exit(
            f"features: no model has a pretrained net {wildcards.net} of this size and roi"
        )
    return alike[0], any(one.kind == "probe" for one in alike)


def feature_views(wildcards):
    """The views of features: those of predictions where a model predicts from them; always that which changes nothing."""
    views = list(CONFIG.predict.views) if featured(wildcards)[1] else []
    return views if "identity" in views else ["identity", *views]


def leak_tables():
    """The tables of the training split that columns of the leak check may be in."""
    return (
        [own(table) for table in CONFIG.tables("train")]
        if CONFIG.leak_check.columns
        else []
    )


def metadata_tables(recipe, *splits):
    """The manifests of some splits, of which a recipe sees metadata; none if it sees none."""
    wanted = splits if recipe.metadata is not None else []
    return [
        f"<results>/data/manifest/split={split}/manifest.parquet" for split in wanted
    ]


def all_metadata_tables():
    """The manifests whose metadata ensemble methods may learn from; none where the data names no metadata."""
    wanted = SPLITS if CONFIG.data.metadata_columns else []
    return [
        f"<results>/data/manifest/split={split}/manifest.parquet" for split in wanted
    ]


def hidden_metadata():
    """The predictions that members make without the metadata that they learnt from."""
    return expand(
        "<results>/without_metadata/model={model}/fold={fold}/predictions.parquet",
        model=[name for name, one in CONFIG.models.items() if one.metadata is not None],
        fold=FOLDS,
    )


def row_metadata(row):
    """The manifest of the test images, where a row of the leaderboard learns from metadata."""
    return (
        all_metadata_tables()[1:]
        if row.removesuffix(OFFSETS).endswith("_metadata")
        else []
    )


def recipe_inputs(wildcards):
    """The inputs of a training that its recipe asks for, by name."""
    wanted = member_recipe(wildcards)
    return {
        "pixels": pixels(wanted, "train"),
        "pretrained": own_weights(wanted.pretrained_file),
        "manifest": (
            "<results>/data/manifest/split=train/manifest.parquet"
            if wanted.labels.active
            else []
        ),
        "pseudo": [
            f"<results>/test/model={name}/fold={wildcards.fold}/predictions.parquet"
            for name in wanted.first_round
        ],
        "pseudo_pixels": pixels(wanted, "test") if wanted.first_round else [],
        "teachers": [
            f"<results>/teach/model={name}/fold={wildcards.fold}/predictions.parquet"
            for name in wanted.teachers
        ],
        "metric": own_metric(wanted.best_by),
        "metadata": metadata_tables(
            wanted, "train", *(["test"] if wanted.first_round else [])
        ),
    }


def stage_files(split):
    """The files before any training: the manifest, the packed images and, for training images, the folds."""
    proof = ["<results>/folds/certificate.json"] if split == "train" else []
    manifest = f"<results>/data/manifest/split={split}/manifest.parquet"
    return [manifest, *proof, *packed_images(split, CONFIG.models.values())]


def member_files(part, name):
    """One file of every member, such as member_files("train", "model.safetensors").

    A function of wildcards, so that Snakemake lists these many files only for the rules that a run uses.
    """
    return lambda wildcards: [
        f"<results>/{part}/model={model}/fold={fold}/{name}"
        for model in CONFIG.models
        for fold in FOLDS
    ]


def members_of(part, name):
    """One file of every member of the model of a job."""
    return [f"<results>/{part}/model={{model}}/fold={fold}/{name}" for fold in FOLDS]


def predicted_parts():
    """What each member predicts: its own fold, the reserve and the test images, as far as there are any."""
    has = {"oof": True, "reserve": CONFIG.folds.reserve > 0, "test": CONFIG.has_test}
    return [part for part, there in has.items() if there]


def told_plan():
    """What the plan of the run leaves of each model, in words, as a parameter; none without a plan."""
    told = {name: PlannedModel(**one).in_words for name, one in (PLAN or {}).items()}
    return {"plan": canonical(told)} if told else {}


def students():
    """The teachers of each model that learns whole classes from others."""
    whole = {name: r for name, r in sorted(CONFIG.models.items()) if not r.factors}
    return {name: sorted(r.teachers) for name, r in whole.items() if r.teachers}


def students_and_teachers():
    """Students and their teachers, sorted."""
    return sorted(
        {name for one, taught_by in students().items() for name in [one, *taught_by]}
    )


def taught_files(part):
    """The predictions of students and teachers, such as taught_files("reserve")."""
    return expand(
        f"<results>/{part}/model={{model}}/fold={{fold}}/predictions.parquet",
        model=students_and_teachers(),
        fold=FOLDS,
    )


def member_timings(parts=None):
    """The timings of every member: of training, OOF, reserve and test predictions, or of some of these parts.

    A function of wildcards, as for member_files.
    """
    parts = parts or ["train", *predicted_parts()]
    return lambda wildcards: [
        f"<results>/timings/{part}/model={model}/fold={fold}.json"
        for part in parts
        for model in CONFIG.models
        for fold in FOLDS
    ]


def budget_votes():
    """The test predictions of the vote that fits the budget; none without a budget or without test images."""
    wanted = CONFIG.vote.budget is not None and CONFIG.has_test
    return "<results>/ensemble/budget.parquet" if wanted else []


def row_tests(row):
    """The test predictions behind one row of the leaderboard."""
    try:
        check_method(row, CONFIG.vote.asked)
        members = entry_members(row, CONFIG.models, len(FOLDS), CONFIG.guests)
    except UserError as error:
        sys.exit(str(error))
    return [
        f"<results>/test/model={model}/fold={fold}/predictions.parquet"
        for model, fold in members
    ]


def guest_files(part, names=tuple(CONFIG.guests)):
    """The users' tables of guests, sorted by the guests' names, such as guest_files("oof")."""
    return [own(getattr(CONFIG.guests[name], part)) for name in sorted(names)]


def row_guest_tests(row):
    """The users' tables of test predictions behind one row of the leaderboard."""
    return guest_files("test", entry_guests(row, CONFIG.guests))


def guest_parts():
    """The tables of all guests by their names as inputs of a rule."""
    has = {"oof": True, "reserve": CONFIG.folds.reserve > 0, "test": CONFIG.has_test}
    return {
        f"guest_{part}": guest_files(part) if there else []
        for part, there in has.items()
    }


def answered(images, groups):
    """The table of the ensemble that a submission is written from, by what a submission answers."""
    name = {"image": images, "group": groups}[CONFIG.submission.unit]
    return f"<results>/ensemble/{name}.parquet"


def test_manifest():
    """The manifest of the test images, where there are any."""
    return (
        "<results>/data/manifest/split=test/manifest.parquet" if CONFIG.has_test else []
    )


def measured_pixels():
    """The packed images that light is measured on: whole images without bars if a model uses them, else any."""
    packed = [recipe.packed for recipe in CONFIG.models.values()]
    return min(packed, key=lambda one: (one.roi != "none", one.fit == "pad")).folder


def shown_model():
    """The model whose heatmaps are shown: the first one that learns whole classes, else the first one."""
    whole = [name for name, model in CONFIG.models.items() if not model.factors]
    return [*whole, *CONFIG.models][0]


def shown_pixels():
    """The packed training images of the model whose heatmaps are shown."""
    return pixels(CONFIG.models[shown_model()], "train")


def beside_report(name, caption):
    """A figure or table next to the page, marked for Snakemake's own report."""
    return report(
        f"<results>/report/{name}",
        caption=f"../report/{caption}.rst",
        category="Results",
        labels={"what": caption.replace("_", " "), "as": name.rpartition(".")[2]},
    )


def own_metric(*names):
    """The file of the user's own metric, where it is among the metrics that a rule uses."""
    return own(CONFIG.metric_path) if CONFIG.metric in names else []


def own_metric_digest(*names):
    """Its digest, so that another file reruns the rule whatever its time; empty where the rule does not use it."""
    return digest_if_there(CONFIG.metric_path or "") if CONFIG.metric in names else ""


def digest_if_there(path):
    """Digest of an optional file; empty if it does not exist."""
    return sha256_file(path)[:16] if os.path.isfile(path) else ""


def searched(*roots):
    """Recipes that the search can reach by the given keys."""
    return CONFIG.searched_recipes(*roots).values()


def searched_pixels(split):
    """The packed images of every size, region and fit that the search can reach."""
    return packed_images(split, searched("size", "roi", "fit", "pack"))


def searched_weights():
    """The files of pretrained weights that the search can reach."""
    files = {r.pretrained_file for r in searched("net", "pretrained")}
    return sorted(path for path in files if path)


def searched_named_weights():
    """The weights by name that the search can reach, each with its digest."""
    names = {r.named_weights for r in searched("net", "pretrained")}
    return {name: expected_digest(name) for name in sorted(filter(None, names))}


def searched_metadata():
    """The manifests of whose metadata a trial may learn."""
    tests = ["test"] if first_round() else []
    tables = [metadata_tables(one, "train", *tests) for one in searched("metadata")]
    return max(tables, key=len)


def search_metrics():
    """The metrics that trials are scored by."""
    return [CONFIG.tune.score, CONFIG.models[CONFIG.searched_model].best_by]


def first_round():
    """Models whose test predictions a trial may learn from."""
    recipes = searched("pseudo", "distill")
    return sorted({name for r in recipes for name in r.first_round})


def teachers():
    """Models whose predictions of the training images a trial may learn from."""
    return sorted({name for r in searched("distill") for name in r.teachers})


def refit_files(part, name):
    """One file of every network that learns from all groups, such as refit_files("train", "model.safetensors")."""
    return expand(
        f"<results>/refit/{part}/model={{model}}/fold={{fold}}/{name}",
        model=CONFIG.refitted,
        fold=range(CONFIG.refit.seeds),
    )


# The tables behind the submissions of a refit.
REFIT_VOTES = {"refit": "test", "vote+refit": "vote"}


def refit_answers(joint):
    """The table that a submission of a refit is written from, by what a submission answers."""
    if CONFIG.submission.unit == "group":
        return f"<results>/refit/groups/{joint}.parquet"
    return f"<results>/refit/{REFIT_VOTES[joint]}.parquet"


def numeric_factor(without=frozenset()):
    """The factor that bins a number, such as age, as JSON; null if there is none."""
    factor = CONFIG.data.numeric_factor
    return canonical(factor and factor.model_dump(mode="json", exclude=set(without)))


def learnt_factor():
    """The same without the settings that only change how scores are shown, so that these retrain nothing."""
    return numeric_factor(without=("detail", "unit"))
