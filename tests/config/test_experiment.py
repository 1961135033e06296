"""The whole configuration: all faults are reported at once; the values that the rules get."""

import math
from pathlib import Path

import pytest

from foldvote.config.data import DataSettings
from foldvote.config.experiment import Config, check_config, load_config
from foldvote.config.recipe import Recipe
from foldvote.errors import UserError
from foldvote.io.files import canonical
from support.config_faults import BASE, faults

ROOT = Path(__file__).resolve().parents[2]
AGE_TABLE = {"layout": "table", "table": "t.csv", "label": None, "factors": {"age": ["young", "middle", "old"]}}


# --- the files that are shipped


def test_the_shipped_configurations_are_valid() -> None:
    demo = load_config(ROOT / "config/config.yaml")
    assert demo.data.layout == "demo" and demo.has_test and demo.root == Path("results/demo")
    assert load_config(ROOT / "config/maskbase.yaml", {"data_root": "somewhere"}).root == Path("somewhere")
    with pytest.raises(UserError, match="data_root: missing: the folder of the data; add --config data_root=FOLDER"):
        load_config(ROOT / "config/maskbase.yaml")


# --- F29 and F31: one line for each fault, all at once


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({"sead": 1}, "config: sead: unknown key; did you mean 'seed'?"),
        ({"folds": {"kk": 5}}, "config: folds.kk: unknown key; did you mean 'k'?"),
        (
            {"models": {"a": {"net": "resnet18", "batchsize": 8}}},
            "models.a.batchsize: unknown key; did you mean 'batch_size'?",
        ),
        (
            {"models": {"a": {"net": "resnet18", "augment": {"flip": 1}}}},
            "augment: flip: no such policy, step or transform; did you mean 'hflip'?",
        ),
        (
            {"data": {"layout": "maskbase", "tain_table": "x"}},
            "data.tain_table: unknown key; did you mean 'train_table'?",
        ),
        (
            {"models": {"a": {"net": "resnet18", "pseudo": {"models": ["b c"]}}}},
            "models.a.pseudo.models.0: 'b c' is no name; use up to 64 letters, digits",
        ),
        ({"data": {"layout": "maskbse"}}, "data: no 'maskbse'; did you mean 'maskbase'?"),
        ({"data": {}}, "data: its key 'layout' is missing; add one of demo, maskbase, table, folders"),
        ({"data": None}, "data: must hold `key: value` lines"),
        ({"models": {"a": None}}, "models.a: must hold `key: value` lines"),
        ({"models": {}}, "models: needs at least 1"),
        ({"models": {"a b": {"net": "resnet18"}}}, "models.a b: 'a b' is no name"),
        ({"models": {"../x": {"net": "resnet18"}}}, "'../x' is no name"),
        ({"models": {"a": {}}}, "models.a.net: missing; add it"),
        (
            {"models": {"a": {"net": "resnet19"}}},
            "models.a.net: timm knows no net 'resnet19'; did you mean 'resnet18'?",
        ),
        (
            {"models": {"a": {"net": "resnet18", "size": "96"}}},
            "size: write height x width in pixels, such as 224x224 (it is '96')",
        ),
        ({"models": {"a": {"net": "resnet18", "roi": "box-9-0-3-5"}}}, "roi box-9-0-3-5 is empty"),
        (
            {"models": {"a": {"net": "resnet18", "roi": "center-8x8"}}},
            "roi: write what is cut out before the resize: none, centre",
        ),
        ({"models": {"a": {"net": "resnet18", "epochs": 3, "warmup_epochs": 3}}}, "leaves nothing of 3 epochs"),
        ({"folds": {"stratify": ["gendr"]}}, "folds: stratify: no factor 'gendr'; did you mean 'gender'?"),
        ({"folds": {"stratify": []}}, "folds.stratify: needs at least 1"),
        ({"folds": {"method": "file"}}, "method: file and file: <path> go together"),
        ({"folds": {"k": 64, "repeats": 2}}, "more than 127 members"),
        ({"data": {"layout": "maskbase", "age_borders": [60, 30]}}, "age_borders: must be two rising ages"),
        ({"data": {"layout": "table", "table": "t", "classes": ["a", "b", "a"]}}, "data.classes: a stands twice"),
        (
            {"data": {"layout": "table", "table": "t", "factors": {"f": ["a", "b"]}}},
            "either label (a column) or factors",
        ),
        ({"data": {"layout": "demo"}}, "data_root: is not used by data.layout: demo"),
        ({"data_root": None}, "data_root: missing"),
        ({"results": "a*b"}, "results: must be a plain folder name"),
        ({"predict": {"views": ["hflip", "hflip"]}}, "predict.views: hflip stands twice"),
        ({"predict": {"views": []}}, "predict.views: needs at least 1"),
        (
            {"models": {"a": {"net": "resnet18", "factors": ["gendr"]}}},
            "models.a.factors: no factor 'gendr'; did you mean 'gender'?",
        ),
        (
            {
                "models": {
                    "a": {
                        "net": "resnet18",
                        "group_shots": 2,
                        "loss": ["focal", {"name": "consistency", "factors": ["aeg"]}],
                    }
                }
            },
            "models.a.loss.consistency: no factor 'aeg'; did you mean 'age'?",
        ),
        (
            {"models": {"a": {"net": "resnet18", "factors": ["mask"]}}},
            "no model of age, gender stands beside those of some factors (a), so that they make no class",
        ),
        (
            {
                "models": {
                    "a": {"net": "resnet18", "factors": ["mask", "age"]},
                    "b": {"net": "resnet18", "factors": ["gender", "age"]},
                }
            },
            "models.a.factors and models.b.factors share age",
        ),
        (
            {"models": {"a": {"net": "resnet18", "factors": ["mask"], "heads": {"age": "ordinal"}}}},
            "models.a.heads.age: this model does not learn age",
        ),
        (
            {"data": AGE_TABLE, "models": {"a": {"net": "resnet18", "labels": {"soft_years": 2}}}},
            "models.a.labels: age borders are the home task's",
        ),
        (
            {"data": AGE_TABLE, "models": {"a": {"net": "resnet18", "heads": {"age": "regression"}}}},
            "models.a.heads.age: regression needs a number behind the bands",
        ),
        (
            {"models": {"a": {"net": "resnet18", "heads": {"mask": "regression"}}}},
            "models.a.heads.mask: regression needs a number behind the bands",
        ),
        (
            {"models": {"a": {"net": "resnet18", "factors": ["mask"], "labels": {"soft_years": 2}}}},
            "models.a.labels: this model does not learn age",
        ),
        (
            {"models": {"alpha": {"net": "resnet18"}, "b": {"net": "resnet18", "pseudo": {"models": ["alpa"]}}}},
            "models.b.pseudo.models: 'alpa' is no model; did you mean 'alpha'?",
        ),
        (
            {"models": {"a": {"net": "resnet18", "pseudo": {"models": ["a"]}}}},
            "models.a.pseudo.models: 'a' is itself of the second round",
        ),
        (
            {
                "data": {"layout": "maskbase", "test_table": None},
                "models": {"a": {"net": "resnet18"}, "b": {"net": "resnet18", "pseudo": {"models": ["a"]}}},
            },
            "models.b.pseudo: there are no test images to learn from",
        ),
        (
            {
                "data": {"layout": "maskbase", "test_table": None},
                "models": {
                    "a": {"net": "resnet18"},
                    "b": {"net": "resnet18", "distill": {"models": ["a"], "test_images": True}},
                },
            },
            "models.b.distill.test_images: there are no test images to learn from",
        ),
        (
            {"models": {"alpha": {"net": "resnet18"}, "b": {"net": "resnet18", "distill": {"models": ["alpa"]}}}},
            "models.b.distill.models: 'alpa' is no model; did you mean 'alpha'?",
        ),
        (
            {"models": {"a": {"net": "resnet18", "distill": {"models": ["a"]}}}},
            "models.a.distill.models: 'a' is this model itself; name another one",
        ),
        (
            {
                "models": {
                    "a": {"net": "resnet18", "distill": {"models": ["b"]}},
                    "b": {"net": "resnet18", "pseudo": {"models": ["c"]}},
                    "c": {"net": "resnet18", "distill": {"models": ["a"]}},
                }
            },
            "models.a.distill.models: 'b' learns from 'a' in its turn; break the circle",
        ),
        (
            {
                "models": {
                    "a": {"net": "resnet18", "factors": ["mask"]},
                    "b": {"net": "resnet18", "distill": {"models": ["a"]}},
                    "c": {"net": "resnet18", "factors": ["gender", "age"]},
                }
            },
            "models.b.distill.models: 'a' learns some factors only; name models of whole classes",
        ),
        (
            {
                "models": {
                    "a": {"net": "resnet18"},
                    "b": {"net": "resnet18", "pseudo": {"models": ["a"]}, "distill": {"models": ["a"]}},
                }
            },
            "models.b: pseudo and distill both add test images; set one of them",
        ),
    ],
)
def test_f29_a_fault_names_its_key_and_the_remedy(values: dict, told: str) -> None:
    assert any(told in fault for fault in faults(BASE | values)), faults(BASE | values)


def test_f29_all_faults_are_told_at_once_also_those_between_sections() -> None:
    told = faults(
        {
            "data": {"layout": "maskbase"},
            "results": "{x}",
            "sead": 3,
            "folds": {"stratify": ["gendr", "agge"]},
            "models": {
                "a": {"net": "resnet18", "lr": -1, "epoch": "bst"},
                "b": {"net": "resnet18", "warmup_epochs": 99, "roi": "box-1-1-1-1"},
            },
        }
    )
    for key in ("data_root", "results", "sead", "'gendr'", "'agge'", "a.lr", "a.epoch", "b: warmup_epochs", "b: roi"):
        assert sum(key in fault for fault in told) == 1, (key, told)
    assert len(told) == 9
    assert all("\n" not in fault for fault in told)


def test_f29_any_misspelt_key_is_met_with_its_right_form() -> None:
    for key in Recipe.model_fields:
        told = faults(BASE | {"models": {"a": {"net": "resnet18", f"{key}x": 1}}})
        meant = "epochs" if key == "epoch" else key  # of names with as many wrong letters, one of the same length
        assert any(f"models.a.{key}x: unknown key; did you mean '{meant}'?" in fault for fault in told), told


@pytest.mark.parametrize("key", ["lr", "weight_decay", "drop_rate", "label_smoothing", "clip_norm", "warmup_epochs"])
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, -1.0])
def test_f31_numbers_that_are_none_and_negative_ones_are_refused(key: str, value: float) -> None:
    (told,) = faults(BASE | {"models": {"a": {"net": "resnet18", key: value}}})
    assert f"models.a.{key}: must be" in told and f"(it is {value})" in told


@pytest.mark.parametrize(
    ("values", "key"),
    [
        ({"folds": {"k": 0}}, "folds.k"),
        ({"folds": {"k": -5}}, "folds.k"),
        ({"folds": {"k": math.nan}}, "folds.k"),
        ({"folds": {"k": math.inf}}, "folds.k"),
        ({"folds": {"k": 2.5}}, "folds.k"),
        ({"folds": {"repeats": 0}}, "folds.repeats"),
        ({"seed": -1}, "seed"),
        ({"seed": 2**53}, "seed"),
        ({"runtime": {"checkpoint_minutes": math.inf}}, "runtime.checkpoint_minutes"),
        ({"runtime": {"predict_batch": 0}}, "runtime.predict_batch"),
        ({"images": {"background": [0, 0, 256]}}, "images.background.2"),
        ({"images": {"max_megapixels": math.nan}}, "images.max_megapixels"),
        ({"models": {"a": {"net": "resnet18", "epochs": 0}}}, "models.a.epochs"),
    ],
)
def test_f31_counts_out_of_range_are_refused(values: dict, key: str) -> None:
    (told,) = faults(BASE | values)
    assert told.startswith(f"config: {key}: must be") and "(it is " in told


def test_f31_the_file_is_named_and_infinity_is_refused_from_yaml_as_well(tmp_path: Path) -> None:
    path = tmp_path / "own.yaml"
    path.write_text("data: {layout: demo}\nmodels: {a: {net: resnet18, lr: .inf, weight_decay: 1e999}}\n")
    with pytest.raises(UserError) as error:
        load_config(path)
    assert [fault.split(": ")[:2] for fault in error.value.faults] == [
        [str(path), "models.a.lr"],
        [str(path), "models.a.weight_decay"],
    ]


@pytest.mark.parametrize(
    ("runtime", "recipe", "parts"),
    [
        ({"gpus_per_member": 3}, {}, 3),
        ({"cpu_processes": 3}, {"batch_size": 32}, 3),
        ({"gpus_per_member": 2}, {"batch_size": 30, "accumulate": 3}, 4),
        ({"gpus_per_member": 8}, {"batch_size": 8}, 8),
        ({"gpus_per_member": 4, "cpu_processes": 2}, {"batch_size": 96, "accumulate": 6}, None),
    ],
)
def test_batches_that_do_not_divide_among_processes_are_refused(runtime: dict, recipe: dict, parts: int | None) -> None:
    values = BASE | {"models": {"a": {"net": "resnet18"} | recipe}, "runtime": runtime}
    told = [] if parts is None else faults(values)
    if parts is None:
        check_config(values)
    else:
        assert told[0].startswith("config: models.a.batch_size: batches of ") and f"into {parts} equal parts" in told[0]
    assert len(told) == (parts is not None)


def test_gpus_that_are_shared_and_members_on_several_exclude_each_other() -> None:
    told = faults(BASE | {"runtime": {"members_per_gpu": 3, "gpus_per_member": 2}})
    assert told == [
        "config: runtime: members_per_gpu 3 and gpus_per_member 2 exclude each other: members share GPUs, or train on "
        "several; set one of them to 1"
    ]
    assert check_config(BASE | {"runtime": {"members_per_gpu": 3, "member_threads": 1}}).runtime.member_threads == 1


# --- what the rules pass on


def test_the_values_of_a_configuration_are_enough_to_make_it_again() -> None:
    config = check_config(BASE | {"seed": 7, "folds": {"method": "holdout"}})
    assert Config.model_validate(config.model_dump(mode="json")) == config
    data = DataSettings.model_validate_json(canonical(config.for_split("train")))
    assert (data.root, data.images, data.data) == (config.root, config.images, config.data)


def test_a_changed_correction_leaves_the_test_manifest_alone() -> None:
    before, after = (check_config(BASE | {"corrections": name}) for name in ("old.csv", "new.csv"))
    assert before.for_split("train") != after.for_split("train")
    assert before.for_split("test") == after.for_split("test")


def test_overrides_merge_by_key_and_leave_the_rest(tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    path.write_text("data: {layout: demo}\nfolds: {k: 3}\nmodels: {a: {net: resnet18, lr: 1e-2}}\n")
    config = load_config(path, {"folds": {"repeats": 2}, "models": {"a": {"epochs": 3}}, "seed": 5})
    assert (config.folds.k, config.folds.repeats, config.seed) == (3, 2, 5)
    assert (config.models["a"].lr, config.models["a"].epochs) == (0.01, 3)


def test_a_users_file_is_looked_for_here_then_below_the_data_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    config = check_config(BASE | {"corrections": "c.csv"})
    assert config.corrections_path == Path("data/c.csv")
    Path("c.csv").write_text("")
    assert config.corrections_path == Path("c.csv")
    demo = check_config({"data": {"layout": "demo"}, "models": BASE["models"], "corrections": "c.csv"})
    assert demo.corrections_path == Path("results/demo/c.csv")
    assert check_config(BASE).corrections_path is None
