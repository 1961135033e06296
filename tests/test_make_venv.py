"""`make run` and `make test` find a Python that foldvote supports, or say in plain words what to install."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
TOOLS = ("make", "sh", "cat", "cut", "echo", "rm", "touch", "mkdir")

# A stand-in for a Python: it answers the questions of envs/make_venv.sh, and writes down who made an environment.
STUB = """#!/bin/sh
case "$2" in
    *sys.exit*) exit {unfit} ;;
    *print*) echo {version} ;;
    *ensurepip*) exit {bare} ;;
    pip) [ -f "$(dirname "$0")/pip" ] ;;
    venv)
        for folder; do :; done
        mkdir -p "$folder/bin"
        cp "$0" "$folder/bin/python"
        touch "$folder/bin/pip"
        echo "$(basename "$0") $*" >> made ;;
esac
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with the Makefile and a PATH of its own that holds no Python."""
    (tmp_path / "bin").mkdir()
    for tool in (*TOOLS, "cp", "dirname", "basename"):
        (tmp_path / "bin" / tool).symlink_to(shutil.which(tool) or pytest.skip(f"no {tool} here"))
    shutil.copy(ROOT / "Makefile", tmp_path)
    (tmp_path / "envs").mkdir()
    shutil.copy(ROOT / "envs/make_venv.sh", tmp_path / "envs")
    (tmp_path / "requirements.lock").write_text("")
    return tmp_path


def put_python(path: Path, version: str, *, bare: bool = False) -> None:
    """A stand-in for a Python of a version; `bare`: without the modules that make an environment."""
    fits = (3, 11) <= tuple(int(part) for part in version.split(".")) < (3, 14)
    path.write_text(STUB.format(unfit=int(not fits), version=version, bare=int(bare)))
    path.chmod(0o755)


def make(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """Make the environment as `make run` and `make test` do first."""
    environment = {"PATH": str(folder / "bin"), "HOME": str(folder)}
    return subprocess.run(
        ["make", ".venv/.installed", *words], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )


def made(folder: Path) -> str:
    """Which Python made the environment; empty if none did."""
    path = folder / "made"
    return path.read_text().partition(" ")[0] if path.exists() else ""


@pytest.mark.parametrize(
    ("pythons", "chosen"),
    [
        ({"python3": "3.12.3", "python3.13": "3.13.1"}, "python3"),
        ({"python3": "3.9.2", "python3.11": "3.11.2", "python3.12": "3.12.3"}, "python3.12"),
        ({"python3": "3.14.0", "python3.13": "3.13.1"}, "python3.13"),
        ({"python3": "3.10.12", "python": "3.11.9"}, "python"),
        ({"python": "3.13.0"}, "python"),
        ({"python3": "3.11.2 bare", "python3.12": "3.12.3"}, "python3.12"),
    ],
)
def test_the_first_suitable_python_on_the_path_makes_the_environment(
    folder: Path, pythons: dict[str, str], chosen: str
) -> None:
    for name, version in pythons.items():
        put_python(folder / "bin" / name, version.removesuffix(" bare"), bare=version.endswith("bare"))
    done = make(folder)
    assert done.returncode == 0, done.stderr
    assert made(folder) == chosen
    assert (folder / ".venv/.installed").exists()


def test_both_commands_of_the_readme_begin_with_the_environment() -> None:
    for target in ("run", "test"):
        # The tests may themselves be run by make, which then tells the folders that it enters.
        printed = subprocess.run(
            ["make", "-n", "--no-print-directory", "VENV=.nowhere", target],
            cwd=ROOT,
            env={name: value for name, value in os.environ.items() if not name.startswith("MAKE")},
            capture_output=True,
            text=True,
            check=True,
        ).stdout.splitlines()
        assert printed[0].startswith("sh envs/make_venv.sh .nowhere")
        assert "requirements.lock" in printed[1]


@pytest.mark.parametrize("pythons", [{}, {"python3": "3.9.2", "python": "2.7.18"}, {"python3": "3.14.0"}])
def test_where_no_python_fits_the_message_says_what_to_install(folder: Path, pythons: dict[str, str]) -> None:
    for name, version in pythons.items():
        put_python(folder / "bin" / name, version)
    done = make(folder)
    assert done.returncode != 0
    assert "foldvote needs Python 3.11, 3.12 or 3.13, and none is on the PATH" in done.stderr
    for words in ("apt install", "brew install", "conda create", "uv venv", *(f"is {v}" for v in pythons.values())):
        assert words in done.stderr
    assert not made(folder) and not (folder / ".venv").exists()


def test_a_python_of_debian_that_cannot_make_an_environment_is_told_with_its_package(folder: Path) -> None:
    put_python(folder / "bin/python3", "3.11.2", bare=True)
    done = make(folder)
    assert done.returncode != 0
    assert "sudo apt install python3.11-venv" in done.stderr
    assert not (folder / ".venv").exists()


def test_a_python_that_is_named_is_taken_or_refused(folder: Path) -> None:
    put_python(folder / "bin/python3", "3.12.3")
    (folder / "other pythons").mkdir()
    put_python(folder / "other pythons/python3.11", "3.11.2")
    put_python(folder / "bin/python3.9", "3.9.2")
    done = make(folder, "PYTHON=python3.9")
    assert done.returncode != 0
    assert "python3.9 is none of them (python3.9 is 3.9.2)" in done.stderr
    done = make(folder, f"PYTHON={folder}/other pythons/python3.11")
    assert done.returncode == 0, done.stderr
    assert made(folder) == "python3.11"


def test_an_environment_that_works_stays_and_a_broken_one_is_made_again(folder: Path) -> None:
    put_python(folder / "bin/python3", "3.12.3")
    (folder / ".venv/bin").mkdir(parents=True)
    put_python(folder / ".venv/bin/python", "3.11.2")
    (folder / ".venv/bin/pip").touch()
    assert make(folder).returncode == 0
    assert made(folder) == ""
    for path in (".venv/bin/pip", ".venv/.installed"):  # as an interrupted, or a refused, start leaves it
        (folder / path).unlink()
    assert make(folder).returncode == 0
    assert made(folder) == "python3"
    (folder / ".venv/.installed").unlink()
    (folder / ".venv/pyvenv.cfg").touch()
    (folder / ".venv/bin/python").unlink()
    assert make(folder).returncode == 0
    assert (folder / "made").read_text().splitlines()[1] == "python3 -m venv --clear .venv"


def test_an_environment_of_another_python_is_named_and_left_alone(folder: Path) -> None:
    put_python(folder / "bin/python3", "3.12.3")
    (folder / ".venv/bin").mkdir(parents=True)
    put_python(folder / ".venv/bin/python", "3.10.4")
    done = make(folder)
    assert done.returncode != 0
    assert ".venv holds Python 3.10.4" in done.stderr and "make clean" in done.stderr
    assert not made(folder)


def test_a_real_python_makes_a_real_environment_without_any_activated_one(folder: Path) -> None:
    real = Path(os.path.realpath(sys.executable))
    done = subprocess.run(
        ["sh", "envs/make_venv.sh", ".venv", str(real)], cwd=folder, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    path = {"PATH": str(folder / "bin")}
    again = subprocess.run(
        ["sh", "envs/make_venv.sh", ".venv"], cwd=folder, env=path, capture_output=True, text=True, check=False
    )
    assert again.returncode == 0 and again.stdout == "", "what works is not made again, whatever is on the PATH"
