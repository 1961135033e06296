"""Names of rows and members: what is mistyped is told before anything is trained."""

import pytest

from foldvote.config.ensemble import Vote
from foldvote.config.entry_names import check_fold, check_method
from foldvote.errors import UserError


@pytest.mark.parametrize(
    ("row", "told"),
    [
        ("vote=stackng", "vote=stackng: no such method in vote.kinds; did you mean 'stacking'?"),
        ("vote=lightgbm", "vote=lightgbm: no such method in vote.kinds; add it"),
        ("vote=rank+offsets", "vote=rank+offsets: no such method in vote.kinds; add it"),
        ("vote=q", "vote=q: no such method in vote.kinds; there are mean, stacking, rank"),
    ],
)
def test_f180_a_vote_that_is_not_compared_is_told(row: str, told: str) -> None:
    with pytest.raises(UserError) as error:
        check_method(row, Vote(kinds=["stacking"], use="rank").asked)
    assert str(error.value) == told


def test_every_method_that_is_compared_is_a_row() -> None:
    assert Vote(kinds=["stacking", "mean"], use="rank").asked == ["mean", "stacking", "rank"]
    for row in ("vote=mean", "vote=stacking", "vote=rank", "model=vote", "model=a/fold=1"):
        check_method(row, Vote(kinds=["stacking"], use="rank").asked)


def test_f180_a_fold_that_is_not_there_is_told() -> None:
    check_fold("model=a/fold=4", 4, 5)
    with pytest.raises(UserError, match=r"^model=a/fold=7: there is no fold 7; the last one is 4$"):
        check_fold("model=a/fold=7", 7, 5)
