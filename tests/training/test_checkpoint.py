"""Checkpoints: whole, of this very run, and never executed."""

import os
import pickle
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from foldvote.errors import UserError
from foldvote.io.files import sha256_bytes, write_bytes
from foldvote.training.checkpoint import (
    drop_checkpoints,
    load_checkpoint,
    remember_parts,
    remembered_parts,
    save_checkpoint,
)

FINGERPRINT = {"fold": 0, "seed": 1, "recipe.lr": "0.001", "recipe.net": '"test_resnet"', "split_sha256": "a"}


def save(folder: Path, *steps: int) -> list[Path]:
    """Save a state at each step. Returns the files that are left."""
    for step in steps:
        save_checkpoint(folder, step, {"fingerprint": FINGERPRINT, "x": torch.full((2,), float(step))})
    return sorted(folder.glob("step-*.ckpt"))


def load(folder: Path, **other: object) -> tuple[float | None, list[str]]:
    """What is loaded, and the warnings."""
    warnings: list[str] = []
    state = load_checkpoint(folder, FINGERPRINT | other, warnings.append)
    return None if state is None else float(state["x"][0]), warnings


def test_the_newest_of_the_last_two_is_loaded(tmp_path: Path) -> None:
    assert load(tmp_path / "none") == (None, [])
    files = save(tmp_path, 3, 12, 100)
    assert [file.name for file in files] == ["step-000000012.ckpt", "step-000000100.ckpt"]
    assert load(tmp_path) == (100.0, [])
    drop_checkpoints(tmp_path)
    assert load(tmp_path) == (None, [])


@pytest.mark.parametrize("place", [0, 40, 100, -1])
def test_f37_f39_a_flipped_bit_anywhere_is_told_and_the_file_before_it_is_used(tmp_path: Path, place: int) -> None:
    _, newest = save(tmp_path, 1, 2)
    content = bytearray(newest.read_bytes())
    content[place] ^= 1
    newest.write_bytes(content)
    (tmp_path / ".step-000000099.ckpt.1.tmp").write_bytes(b"half a file")
    loaded, warnings = load(tmp_path)
    assert loaded == 1.0
    assert warnings == [f"warning: {newest}: its checksum does not match: damaged, the one before it is used"]


@pytest.mark.parametrize(
    ("field", "value"),
    [("recipe.lr", "0.002"), ("fold", 1), ("seed", 3), ("recipe.net", '"test_resnet2"'), ("new", "key")],
)
def test_f40_a_checkpoint_of_another_run_is_refused_by_name(tmp_path: Path, field: str, value: object) -> None:
    save(tmp_path, 3)
    loaded, warnings = load(tmp_path, **{field: value})
    assert loaded is None
    assert f"is of another run (other {field}: {FINGERPRINT.get(field)}, now {value})" in warnings[0]


def test_a_full_disk_is_told_with_the_bytes_that_are_needed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = save(tmp_path, 1, 2)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=1000))
    with pytest.raises(UserError, match=r"a checkpoint needs [\d,]+ bytes, 1,000 are free"):
        save(tmp_path, 3)
    assert sorted(tmp_path.iterdir()) == before


_MEASURE = """
import resource, sys, time
from pathlib import Path
import torch
from foldvote.training.checkpoint import load_checkpoint, save_checkpoint
folder, tensors = Path(sys.argv[1]), {str(number): torch.ones(1_000_000) for number in range(50)}
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
before = peak()
save_checkpoint(folder, 1, {"fingerprint": {}, "tensors": tensors})
saved = peak()
load_checkpoint(folder, {}, print)
print((saved - before) / 1024, (peak() - saved) / 1024)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the peak is in other units")
def test_a_checkpoint_is_never_whole_in_memory_but_as_its_tensors(tmp_path: Path) -> None:
    """A state of 191 MiB."""
    library = Path(__file__).resolve().parents[2] / "workflow/scripts"
    command = [sys.executable, "-c", _MEASURE, str(tmp_path)]
    done = subprocess.run(
        command, env=os.environ | {"PYTHONPATH": str(library)}, capture_output=True, text=True, check=True
    )
    to_save, to_load = map(float, done.stdout.split())
    assert to_save < 60
    assert to_load < 191 + 60


def test_parts_are_remembered_for_the_run_they_were_found_in(tmp_path: Path) -> None:
    assert remembered_parts(tmp_path, FINGERPRINT) == 1
    remember_parts(tmp_path, 4, FINGERPRINT)
    assert remembered_parts(tmp_path, FINGERPRINT) == 4
    assert remembered_parts(tmp_path, FINGERPRINT | {"recipe.lr": "0.1"}) == 1
    drop_checkpoints(tmp_path)
    assert remembered_parts(tmp_path, FINGERPRINT) == 1
    (tmp_path / "parts.json").write_text("[]")
    assert remembered_parts(tmp_path, FINGERPRINT) == 1


class Malicious:
    """Touches a file when it is unpickled."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.target),)


def test_f41_a_malicious_checkpoint_is_not_executed(tmp_path: Path) -> None:
    content = pickle.dumps({"fingerprint": {}, "x": Malicious(tmp_path / "executed")}, protocol=2)
    sealed = b"foldvote-checkpoint-1 " + sha256_bytes(content).encode() + b"\n" + content
    write_bytes(tmp_path / "step-000000001.ckpt", sealed)
    told: list[str] = []
    assert load_checkpoint(tmp_path, {}, told.append) is None
    assert "not loaded" in told[0]
    assert not (tmp_path / "executed").exists()
