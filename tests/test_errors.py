"""Errors for the user: all faults at once, a long list cut."""

import pytest

from foldvote.errors import UserError, raise_all


def test_a_long_list_of_faults_is_cut_and_counted() -> None:
    raise_all([])
    with pytest.raises(UserError) as error:
        raise_all(f"fault {number}" for number in range(25))
    assert len(error.value.faults) == 21 and error.value.faults[-1] == "... and 5 more of this kind"
