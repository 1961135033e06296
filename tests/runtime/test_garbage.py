"""When Python looks for garbage: not during imports, rarely while jobs are planned."""

import ast
import gc
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from foldvote.runtime.code_digest import reached
from foldvote.runtime.garbage import NEW_OBJECTS, collect_garbage_rarely, imports_stay

SCRIPTS = Path(__file__).resolve().parents[2] / "workflow/scripts"


@pytest.fixture(autouse=True)
def as_before() -> Iterator[None]:
    thresholds = gc.get_threshold()
    gc.unfreeze()
    yield
    gc.set_threshold(*thresholds)
    gc.enable()
    gc.freeze()  # as tests/conftest.py does


def test_imports_are_not_searched_then_or_later() -> None:
    with imports_stay():
        assert not gc.isenabled()
        stays = [[number] for number in range(1000)]
    assert gc.isenabled()
    assert gc.get_freeze_count() >= len(stays)
    found = {id(one) for one in gc.get_objects()}
    assert not any(id(one) in found for one in stays)


def test_the_search_goes_on_after_a_failed_import_and_stays_off_where_it_was_off() -> None:
    with pytest.raises(ImportError), imports_stay():
        raise ImportError
    assert gc.isenabled()
    gc.disable()
    with imports_stay():
        pass
    assert not gc.isenabled()


@pytest.mark.parametrize(("before", "after"), [(700, NEW_OBJECTS), (0, 0), (10**7, 10**7)])
def test_a_process_that_plans_looks_rarely_or_as_rarely_as_it_was_told(before: int, after: int) -> None:
    gc.set_threshold(before)
    collect_garbage_rarely()
    assert gc.get_threshold()[0] == after


def test_every_script_of_a_job_with_a_network_imports_so() -> None:
    for path in sorted(SCRIPTS.glob("*.py")):
        modules = {module.replace(".", "/") for module, _ in reached(path) if module.startswith("foldvote.")}
        files = [SCRIPTS / f"{module}.py" for module in modules if (SCRIPTS / f"{module}.py").is_file()]
        with_network = any(
            re.search("^import torch$", file.read_text(encoding="utf-8"), re.MULTILINE) for file in files
        )
        imports_so = any(isinstance(node, ast.With) for node in ast.parse(path.read_text(encoding="utf-8")).body)
        assert imports_so == with_network, path.name
