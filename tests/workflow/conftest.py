"""A finished run of the tiny demo, made once for all tests of the workflow."""

import shutil
from pathlib import Path

import pytest

from support.snakemake_run import snakemake, write_config


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a finished run; tests that change it work on a copy."""
    folder = tmp_path_factory.mktemp("한글 and spaces")
    write_config(folder)
    snakemake(folder)
    return folder


@pytest.fixture
def copy(finished: Path, tmp_path: Path) -> Path:
    """A copy of the finished run, with Snakemake's memory of it."""
    folder = tmp_path / "copy"
    shutil.copytree(finished, folder)
    return folder
