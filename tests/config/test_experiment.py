"""The configuration: YAML as its writer meant it, every fault told at once, and the schema that editors read."""

import json
import math
import os
import pickle
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from foldvote.config.base import parse_size
from foldvote.config.data import DataSettings
from foldvote.config.experiment import Config, check_config, load_config
from foldvote.config.folds import Folds
from foldvote.config.recipe import Recipe
from foldvote.config.reference import schema, write_all
from foldvote.config.timm_names import net_names
from foldvote.config.yaml_file import load_yaml
from foldvote.errors import UserError
from foldvote.io.files import canonical

ROOT = Path(__file__).resolve().parents[2]
AGE_TABLE = {"layout": "table", "table": "t.csv", "label": None, "factors": {"age": ["young", "middle", "old"]}}
BASE = {"data": {"layout": "maskbase"}, "data_root": "data", "models": {"a": {"net": "resnet18"}}}


def faults(values: dict) -> list[str]:
    with pytest.raises(UserError) as refusal:
        check_config(values)
    return list(refusal.value.faults)


def loaded(tmp_path: Path, text: str | bytes) -> dict:
    path = tmp_path / "c.yaml"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return load_yaml(path)


def yaml_faults(tmp_path: Path, text: str | bytes) -> list[str]:
    with pytest.raises(UserError) as refusal:
        loaded(tmp_path, text)
    return list(refusal.value.faults)


# --- the files that are shipped


def test_the_shipped_configurations_are_valid() -> None:
    demo = load_config(ROOT / "config/config.yaml")
    assert demo.data.layout == "demo" and demo.has_test and demo.root == Path("results/demo")
    home = load_config(ROOT / "config/maskbase.yaml", {"data_root": "somewhere"})
    assert home.root == Path("somewhere")
    with pytest.raises(UserError, match="data_root: missing: the folder of the data; add --config data_root=FOLDER"):
        load_config(ROOT / "config/maskbase.yaml")


def test_the_committed_schema_and_the_page_of_all_keys_are_current(tmp_path: Path) -> None:
    for name in ("config", "docs"):
        (tmp_path / name).mkdir()
    write_all(tmp_path)
    for name in ("config/schema.json", "docs/config.md"):
        assert (tmp_path / name).read_text() == (ROOT / name).read_text(), f"{name} is out of date: run make schema"
    assert json.loads((ROOT / "config/schema.json").read_text()) == schema()


def test_every_key_is_explained_in_the_schema() -> None:
    whole = schema()
    unexplained = [
        f"{name}.{key}"
        for name, section in {**whole["$defs"], "Config": whole}.items()
        for key, entry in section["properties"].items()
        if "description" not in entry and "$ref" not in entry and "const" not in entry and "discriminator" not in entry
    ]
    assert not unexplained


def test_known_nets_are_those_of_timm_without_importing_it() -> None:
    code = (
        "import sys; from foldvote.config.timm_names import net_names as n; print('timm' in sys.modules, *sorted(n()))"
    )
    environment = os.environ | {"PYTHONPATH": str(ROOT / "workflow/scripts")}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    imported, *names = done.stdout.split()
    assert imported == "False" and set(names) == net_names()
    assert {"resnet10t", "tf_efficientnet_lite0", "test_vit", "resnet18", "vit_tiny_patch16_224"} <= set(names)


# --- F28: the traps of YAML


@pytest.mark.parametrize("text", ["1e-4", "1E-4", "1.e-4", ".1e-3", "+1e-4", "0.0001"])
def test_f28_a_number_in_scientific_form_is_a_number(tmp_path: Path, text: str) -> None:
    assert loaded(tmp_path, f"lr: {text}") == {"lr": pytest.approx(1e-4)}


@given(st.floats(allow_nan=False, allow_infinity=False, min_value=1e-12, max_value=1e12))
def test_f28_every_way_to_print_a_float_reads_back(tmp_path_factory: pytest.TempPathFactory, number: float) -> None:
    path = tmp_path_factory.getbasetemp() / "number.yaml"
    path.write_text(f"a: {number!r}\nb: {number:e}\nc: {number:.17E}\n")
    read = load_yaml(path)
    assert read["a"] == number and read["c"] == number
    assert read["b"] == pytest.approx(number, rel=1e-6)


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("seed: 010", "line 2: seed: YAML reads 010 as an octal number; write 10"),
        ("seed: -010", "YAML reads -010 as an octal number; write -10"),
        ("seed: 00", "YAML reads 00 as an octal number; write 0,"),
        ("flag: no", "flag: YAML reads no as true or false; write true or false, or 'no' in quotes"),
        ("flag: Off", "flag: YAML reads Off as true or false"),
        ("time: 12:30", "time: YAML reads 12:30 as a time or date; write it in quotes"),
        ("day: 2024-01-31", "day: YAML reads 2024-01-31 as a time or date"),
        ("first: 3", "first: the key stands twice"),
        ("a: {b: {c: 1, c: 2}}", "a.b.c: the key stands twice"),
        ("a: [1, {b: 010}]", "a[1].b: YAML reads 010"),
        ("a: 0x_", "'0x_' is not what its form or tag says"),
        ("a: !!int foo", "'foo' is not what its form or tag says"),
        ("? [a, b]\n: 1", "a list or mapping cannot be a key"),
        ("<<: 3", "<< takes a mapping"),
    ],
)
def test_f28_a_trap_names_itself_its_key_and_its_line(tmp_path: Path, line: str, told: str) -> None:
    (fault,) = yaml_faults(tmp_path, f"first: 1\n{line}\n")
    assert "c.yaml, line 2" in fault and told in fault


def test_f28_all_traps_of_a_file_are_told_at_once(tmp_path: Path) -> None:
    told = yaml_faults(tmp_path, "a: 010\nb: yes\na: 1\nc: !!python/tuple [1]\n")
    assert [fault.split(": ")[0].rsplit(", ", 1)[1] for fault in told] == ["line 1", "line 2", "line 3", "line 4"]


def test_quotes_anchors_and_merges_mean_what_they_say(tmp_path: Path) -> None:
    text = "a: '010'\nb: \"no\"\nbase: &base {x: 1, y: 2}\nc: {<<: *base, y: 3}\n"
    text += "d: {<<: [*base, {y: 9, z: 4}]}\ne: *base\n"
    assert loaded(tmp_path, text) == {
        "a": "010",
        "b": "no",
        "base": {"x": 1, "y": 2},
        "c": {"x": 1, "y": 3},
        "d": {"x": 1, "y": 2, "z": 4},
        "e": {"x": 1, "y": 2},
    }


@pytest.mark.parametrize(
    "text", ["", "- 1\n- 2", "just words", "a: 1\n---\nb: 2", "a: [1", "a: \0", "a: *unknown", "\tb: 1"]
)
def test_what_is_no_mapping_is_refused_in_one_line(tmp_path: Path, text: str) -> None:
    (fault,) = yaml_faults(tmp_path, text)
    assert fault.startswith(str(tmp_path / "c.yaml")) and "\n" not in fault


def test_a_missing_directory_or_huge_file_is_refused(tmp_path: Path) -> None:
    for path in (tmp_path / "none.yaml", tmp_path):
        with pytest.raises(UserError, match=r"no such file|cannot be read"):
            load_yaml(path)
    assert "larger than 1 MB" in yaml_faults(tmp_path, "a: " + "x" * 1_000_001)[0]
    assert "cannot be read" in yaml_faults(tmp_path, "a: 가".encode("cp949"))[0]


# --- F27 and F30: nothing of a file is executed, and nothing in it makes the reader run for ever


class Malicious:
    """Makes a folder when it is unpickled."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self):
        return Path.mkdir, (self.target,)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_f27_a_pickle_given_as_configuration_is_not_executed(tmp_path: Path, protocol: int) -> None:
    yaml_faults(tmp_path, pickle.dumps(Malicious(tmp_path / "executed"), protocol=protocol))
    assert not (tmp_path / "executed").exists()


@pytest.mark.parametrize(
    "text",
    [
        "a: !!python/object/apply:os.mkdir [executed]",
        "a: !!python/object/new:os.mkdir [executed]",
        "!!python/object/apply:os.mkdir [executed]: 1",
        "? !!python/name:os.mkdir\n: 1",
        "a: !!python/module:os",
        "a: !own {b: 1}",
        "a: !!set {b}",
        "a: !!binary aGVsbG8=",
        "!!python/object:object {a: 1}",
    ],
)
def test_f30_tags_are_refused_and_not_executed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.chdir(tmp_path)
    assert any("not allowed" in fault or "cannot be a key" in fault for fault in yaml_faults(tmp_path, text))
    assert not (tmp_path / "executed").exists()


def bomb(levels: int) -> str:
    """Aliases that stand for 9 ** levels values."""
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, levels)]
    return "\n".join(lines)


@pytest.mark.parametrize(
    "text",
    [
        bomb(9),
        f"z: !own\n  - &a0 [x, x]\n{chr(10).join(f'  - &a{i} [*a{i - 1}, *a{i - 1}]' for i in range(1, 40))}",
        "a:\n  ? [&a0 [x, x], " + ", ".join(f"&a{i} [*a{i - 1}, *a{i - 1}]" for i in range(1, 40)) + "]\n  : 1",
        "a: &a [*a]",
        "a: &a {b: *a}",
        "a: &a {<<: *a}",
        "a: &a [b, {c: [*a]}]",
        "a: " + "[" * 20_000,
        "a: " + "{b: " * 20_000,
    ],
    ids=["nested", "under_a_tag", "in_a_key", "list_of_itself", "mapping_of_itself", "merge", "deep", "open", "braces"],
)
def test_f30_aliases_and_nesting_without_end_are_refused(tmp_path: Path, text: str) -> None:
    told = yaml_faults(tmp_path, text)  # unguarded, most of these take hours or all memory
    assert len(told) == 1 and len(told[0]) < 2000


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
            "size: must be height x width in pixels, such as 128x96 (it is '96')",
        ),
        ({"models": {"a": {"net": "resnet18", "roi": "box-9-0-3-5"}}}, "roi box-9-0-3-5 is empty"),
        (
            {"models": {"a": {"net": "resnet18", "roi": "center-8x8"}}},
            "roi: must be cut out before the resize: none, centre",
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
        assert any(f"models.a.{key}x: unknown key; did you mean '{key}'?" in fault for fault in told), told


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
    with pytest.raises(UserError) as refusal:
        load_config(path)
    assert [fault.split(": ")[:2] for fault in refusal.value.faults] == [
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


def test_f23_one_fold_is_refused_and_holdout_named() -> None:
    (told,) = faults(BASE | {"folds": {"k": 1}})
    assert "k: 1 is no cross-validation; for a single validation part say method: holdout" in told
    (told,) = faults(BASE | {"folds": {"method": "holdout", "k": 5}})
    assert "method: holdout has one fold, k is 5; set k: 1 or drop k" in told


# --- what the rules pass on


@pytest.mark.parametrize(
    ("values", "count"),
    [
        ({}, 5),
        ({"k": 3, "repeats": 2}, 6),
        ({"method": "holdout"}, 1),
        ({"method": "file", "file": "f.csv", "k": 4}, 4),
    ],
)
def test_settings_survive_the_way_to_a_job(values: dict, count: int) -> None:
    settings = Folds.model_validate(values)
    assert settings.count == count
    assert Folds.model_validate_json(canonical(settings.model_dump(mode="json"))) == settings


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


def test_sizes_are_height_then_width() -> None:
    assert parse_size("128x96") == (128, 96)
