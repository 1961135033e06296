"""What is said of a wrong configuration."""

import pytest

from foldvote.config.experiment import check_config
from foldvote.errors import UserError

BASE = {"data": {"layout": "maskbase"}, "data_root": "data", "models": {"a": {"net": "resnet18"}}}


def faults(values: dict) -> list[str]:
    with pytest.raises(UserError) as error:
        check_config(values)
    return list(error.value.faults)
