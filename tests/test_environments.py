"""The forms of the environment say the same versions, and the profiles for clusters know every rule."""

import re
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.markers import default_environment
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
CLUSTERS = ["slurm", "kubernetes"]
LOCK = [
    line for line in (ROOT / "requirements.lock").read_text(encoding="utf-8").splitlines() if re.match(r"[\w]", line)
]


def pinned(python: str) -> dict[str, Version]:
    """What the lock installs for a version of Python."""
    found: dict[str, Version] = {}
    for line in LOCK:
        requirement = Requirement(line)
        where = default_environment() | {"python_version": python, "python_full_version": f"{python}.0"}
        if requirement.marker is None or requirement.marker.evaluate(where):
            (only,) = requirement.specifier
            assert only.operator == "=="
            name = canonicalize_name(requirement.name)
            assert name not in found, f"{name} stands twice for Python {python}"
            found[name] = Version(only.version)
    return found


def profile(name: str) -> dict[str, object]:
    return yaml.safe_load((ROOT / f"profiles/{name}/config.yaml").read_text(encoding="utf-8"))


def rules() -> dict[str, str]:
    """The text of every rule; one that builds on another has the other's text as well."""
    own: dict[str, tuple[str | None, str]] = {}
    for path in sorted((ROOT / "workflow/rules").glob("*.smk")):
        text = path.read_text(encoding="utf-8")
        heads = list(re.finditer(r"^ *(?:rule (\w+)|use rule (\w+) as (\w+) with):", text, re.MULTILINE))
        ends = [head.start() for head in heads[1:]] + [len(text)]
        for head, end in zip(heads, ends, strict=False):  # a file without rules has an end all the same
            own[head[1] or head[3]] = head[2], text[head.start() : end]

    def whole(name: str | None) -> str:
        base, text = own.get(name or "", (None, ""))
        return whole(base) + text if text else ""

    return {name: whole(name) for name in own}


@pytest.mark.parametrize("python", ["3.11", "3.12", "3.13"])
def test_the_lock_holds_every_dependency_within_its_bounds(python: str) -> None:
    assert SpecifierSet(PROJECT["requires-python"]).contains(f"{python}.0")
    versions = pinned(python)
    wanted = [
        *PROJECT["dependencies"],
        *(text for extra in PROJECT["optional-dependencies"].values() for text in extra),
    ]
    for requirement in map(Requirement, wanted):
        assert requirement.specifier.contains(versions[canonicalize_name(requirement.name)]), requirement


def test_condas_form_is_the_lock() -> None:
    environment = yaml.safe_load((ROOT / "envs/foldvote.yaml").read_text(encoding="utf-8"))
    *packages, pip = environment["dependencies"]
    assert pip["pip"] == LOCK
    assert "pip" in packages
    python = next(text for text in packages if text.startswith("python ")).split("=")[1]
    assert SpecifierSet(PROJECT["requires-python"]).contains(f"{python}.0")


def test_the_image_installs_the_lock_with_a_python_that_it_is_for() -> None:
    recipe = (ROOT / "Dockerfile").read_text(encoding="utf-8")
    python = re.search(r"^FROM python:(\d+\.\d+)-slim", recipe, re.MULTILINE)[1]
    assert SpecifierSet(PROJECT["requires-python"]).contains(f"{python}.0")
    assert "pip install --no-cache-dir --no-deps -r /tmp/requirements.lock" in recipe
    assert "!requirements.lock" in (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()


def test_plugins_are_pinned_and_not_in_the_lock_which_they_would_slow_down() -> None:
    lines = (ROOT / "envs/slurm.txt").read_text(encoding="utf-8").splitlines()
    plugins = [Requirement(line) for line in lines if line and not line.startswith("#")]
    assert plugins
    for plugin in plugins:
        assert [part.operator for part in plugin.specifier] == ["=="]
        assert canonicalize_name(plugin.name) not in pinned("3.11")


@pytest.mark.parametrize("name", CLUSTERS)
def test_a_cluster_profile_says_what_a_rule_takes_where_the_rule_says_it_for_this_machine(name: str) -> None:
    settings, texts = profile(name), rules()
    assert len(texts) > 15
    assert {rule for rule, text in texts.items() if " threads:" in text} == set(settings["set-threads"])
    networks = {rule for rule, text in texts.items() if re.search(r"^ +gpu=\w+,$", text, re.MULTILINE)}
    assert networks == {rule for rule, wanted in settings["set-resources"].items() if wanted.get("gpu")}
    named = [*settings["set-resources"], *settings.get("groups", {})]
    assert set(named) <= set(texts)


def test_pods_mount_shared_memory_for_loader_processes_from_a_claim_that_the_profile_brings() -> None:
    mounts = dict(text.split(":") for text in profile("kubernetes")["kubernetes-persistent-volumes"])
    claims = {path: claim for claim, path in mounts.items()}
    text = (ROOT / "profiles/kubernetes/shared-memory.yaml").read_text(encoding="utf-8")
    volume, claim = yaml.safe_load_all(text)
    assert claims["/dev/shm"] == claim["metadata"]["name"] == volume["spec"]["claimRef"]["name"]
    assert claim["spec"]["volumeName"] == volume["metadata"]["name"]
    assert volume["spec"]["hostPath"]["path"] == "/dev/shm"
    assert claim["metadata"]["namespace"] == volume["spec"]["claimRef"]["namespace"]
    assert profile("kubernetes")["kubernetes-namespace"] == claim["metadata"]["namespace"]


@pytest.mark.parametrize("name", CLUSTERS)
def test_a_cluster_profile_keeps_the_manners_of_the_default_one(name: str) -> None:
    default, settings = profile("default"), profile(name)
    for key in set(default) - {"resources"}:
        assert settings[key] == default[key], key


def test_groups_of_the_slurm_profile_share_partition_and_options_and_no_job_asks_for_more_gpus_than_one_may() -> None:
    settings = profile("slurm")
    groups: dict[str, set[tuple[object, object]]] = {}
    for rule, group in settings["groups"].items():
        wanted = settings["set-resources"].get(rule, {})
        groups.setdefault(group, set()).add((wanted.get("slurm_partition"), wanted.get("slurm_extra")))
    assert settings["resources"]["gpu"] >= max(wanted.get("gpu", 0) for wanted in settings["set-resources"].values())
    assert all(len(kinds) == 1 for kinds in groups.values()), (
        "Snakemake refuses a group with two texts for one resource"
    )
