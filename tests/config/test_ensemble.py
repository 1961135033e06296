"""The section `vote` of the configuration."""

import pytest
from pydantic import ValidationError

from foldvote.config.ensemble import Vote


@pytest.mark.parametrize("budget", [{"ms_per_image": 20}, {"megabytes": 3.5}, {"ms_per_image": 1, "megabytes": 2}])
@pytest.mark.parametrize("use", ["auto", "mean"])
def test_a_budget_limits_time_or_size_of_a_mean(budget, use):
    kept = Vote.model_validate({"use": use, "budget": budget}).budget
    assert kept is not None and kept.model_dump(exclude_none=True) == budget


@pytest.mark.parametrize(
    ("vote", "words"),
    [
        ({"budget": {}}, "names no limit"),
        ({"budget": {"ms_per_image": 0}}, "greater than 0"),
        ({"budget": {"images": 3}}, "Extra inputs"),
        ({"budget": {"megabytes": 3}, "use": "greedy"}, "use asks for greedy"),
    ],
)
def test_a_budget_that_means_nothing_is_refused(vote, words):
    with pytest.raises(ValidationError, match=words):
        Vote.model_validate(vote)
