"""Names that packages know: the list is theirs, and another version of a package is not refused by it."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from pydantic import ValidationError

from foldvote.config import package_names
from foldvote.config.augment import AugmentStep
from foldvote.config.augmentation_names import transform_faults
from foldvote.config.experiment import check_config
from foldvote.config.package_names import listed, may_know
from foldvote.config.recipe import Recipe
from foldvote.config.timm_names import net_names, optimizer_names
from foldvote.errors import UserError
from list_names import installed_names, patch_strides

ROOT = Path(__file__).resolve().parents[2]
UNKNOWN = [
    ({"net": "resnet19"}, "timm knows no net 'resnet19'; did you mean 'resnet18'?"),
    ({"net": "resnet18", "optimizer": "adamm"}, "timm has no optimizer 'adamm'; did you mean 'adam'?"),
    (
        {"net": "resnet18", "optimizer": "sgd", "optimizer_args": {"momentun": 0.9}},
        "sgd has no argument 'momentun'; did you mean 'momentum'?",
    ),
]


@pytest.fixture
def another_version(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if other versions of timm and albumentations were installed than the list is of."""
    monkeypatch.setattr(package_names, "version", lambda _package: "0.0.1")
    may_know.cache_clear()
    yield
    may_know.cache_clear()


def test_the_list_is_that_of_the_locked_and_installed_packages() -> None:
    locked = (ROOT / "requirements.lock").read_text()
    for package, names in listed().items():
        assert re.search(rf"^{package}=={re.escape(names['version'])}\b", locked, re.MULTILINE), "run make schema"
    names = {package: dict(values) for package, values in listed().items()}
    patches = names["timm"].pop("patches")
    assert names == installed_names(), "run make schema"
    some = [*sorted(patches)[::40], "resnet18", "test_efficientnet", "maxvit_tiny_tf_224"]
    assert patch_strides(some) == {net: patches[net] for net in some if net in patches}, "run make schema"


def test_names_are_known_without_importing_the_packages() -> None:
    code = """
import sys
from foldvote.config.augmentation_names import transform_arguments
from foldvote.config.timm_names import net_names, optimizer_names
assert "CLAHE" in transform_arguments() and "resnet10t" in net_names() and "adamw" in optimizer_names()
print(*sys.modules.keys() & {"albumentations", "cv2", "timm", "torch"})
"""
    environment = os.environ | {"PYTHONPATH": str(ROOT / "workflow/scripts")}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout == "\n"
    assert {"tf_efficientnet_lite0", "test_vit", "vit_tiny_patch16_224"} <= net_names() and "sgd" in optimizer_names()


@pytest.mark.parametrize(("values", "told"), UNKNOWN)
def test_an_unknown_name_is_told_with_the_nearest_known_one(values: dict, told: str) -> None:
    with pytest.raises(ValidationError, match=re.escape(told)):
        Recipe.model_validate(values)


@pytest.mark.parametrize(("values", "told"), UNKNOWN)
def test_a_name_that_is_nowhere_in_another_version_is_told_as_well(
    another_version: None, values: dict, told: str
) -> None:
    with pytest.raises(ValidationError, match=re.escape(told)):
        Recipe.model_validate(values)


def test_f181_arguments_of_an_optimizer_are_told_at_the_start_all_at_once() -> None:
    own = {"net": "resnet18", "optimizer": "sgd", "optimizer_args": {"momentun": 0.9, "nesterov": True, "lr": 0.1}}
    with pytest.raises(UserError) as error:
        check_config({"data": {"layout": "demo"}, "models": {"small": own}}, "c.yaml")
    assert error.value.faults == (
        "c.yaml: models.small.optimizer_args: sgd has no argument 'momentun'; did you mean 'momentum'?",
        "c.yaml: models.small.optimizer_args: lr is a key of its own; write it beside optimizer",
    )
    assert Recipe(net="resnet18", optimizer="adamw", optimizer_args={"betas": [0.9, 0.98], "momentum": 0.9})


def test_a_name_that_another_version_has_is_taken(another_version: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("foldvote.config.recipe.net_names", lambda: frozenset(["resnet50"]))
    monkeypatch.setattr("foldvote.config.recipe.optimizer_names", lambda: frozenset(["sgd"]))
    monkeypatch.setattr("foldvote.config.augmentation_names.transform_arguments", lambda: {"Blur": frozenset(["p"])})
    assert Recipe(net="resnet18", optimizer="adamw").net == "resnet18"
    steps = [AugmentStep(name="CLAHE", arguments={}), AugmentStep(name="Blur", arguments={"blur_limit": 3})]
    assert transform_faults(steps) == []
    wrong = [AugmentStep(name="CLAHEE", arguments={}), AugmentStep(name="Blur", arguments={"blur_limitt": 3})]
    assert [fault.split(";")[0] for fault in transform_faults(wrong)] == [
        "CLAHEE: no such policy, step or transform",
        "Blur: no argument 'blur_limitt'",
    ]


def test_every_name_is_taken_where_the_package_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(package: str) -> str:
        raise package_names.PackageNotFoundError(package)

    monkeypatch.setattr(package_names, "version", absent)
    may_know.cache_clear()
    try:
        assert Recipe(net="anything", optimizer="whatever").net == "anything"
        steps = [AugmentStep(name="Anything", arguments={"at": "all"}), AugmentStep(name="hflip")]
        assert transform_faults(steps) == ["hflip: its strength from 0 to 1 is missing; write `hflip: 0.5` or the like"]
    finally:
        may_know.cache_clear()
