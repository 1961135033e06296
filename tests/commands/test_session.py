"""The messages of a run at its start."""

from pathlib import Path

import pytest

from foldvote.commands.session import begin_run


@pytest.mark.parametrize(
    ("gpus", "offered", "a_member", "told"),
    [
        ([], 0, 2, "No GPU found: networks train on the CPU, with 8 core(s).\n"),
        (["0", "1"], 1, 2, "runtime.gpus_per_member is 2 and --resources gpu=1 offers 1: each member trains on 1.\n"),
        (["0", "1"], 2, 2, ""),
        (["0"], 0, 1, ""),
    ],
)
def test_the_first_words_of_a_run_say_what_networks_train_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], gpus: list[str], offered: int, a_member: int, told: str
) -> None:
    begin_run(str(tmp_path), gpus, 8, offered, a_member)
    assert capsys.readouterr().err == told
