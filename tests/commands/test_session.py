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


@pytest.mark.parametrize(
    ("offered", "told"),
    [
        (0, ""),
        (
            1,
            "runtime.members_per_gpu is 3 and --resources gpu=1 offers 1: no more than 1 at a time; "
            "each GPU counts as 3, so offer gpu=6 for all.\n",
        ),
        (3, ""),
        (6, ""),
    ],
)
def test_who_shares_gpus_is_told_what_to_offer(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], offered: int, told: str
) -> None:
    begin_run(str(tmp_path), ["0", "1"], 8, offered, sharers=3)
    assert capsys.readouterr().err == told
