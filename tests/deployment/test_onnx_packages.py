"""The packages of ONNX are imported so that they stay silent."""

from pathlib import Path

import pytest

from support.processes import python


@pytest.mark.parametrize("module", ["foldvote.deployment.onnx_packages", "foldvote.deployment.bundle_predict"])
def test_onnxruntime_makes_no_identifier_and_reports_nothing(module: str, tmp_path: Path) -> None:
    """Version 1.32 keeps an identifier in the home folder and one in TMPDIR, and sends them with its news."""
    home = {name: str(tmp_path) for name in ("HOME", "TMPDIR", "XDG_CACHE_HOME", "XDG_DATA_HOME", "MPLCONFIGDIR")}
    code = f"import {module}, onnxruntime, os; print(os.environ['ORT_DISABLE_TELEMETRY'], onnxruntime.get_device())"
    process = python(code, **home)
    told, faults = process.communicate(timeout=120)
    assert told.split() == ["1", "CPU"], faults
    found = [path.name for path in tmp_path.rglob("*")]
    assert not {".ses", "deviceid", "Microsoft"} & set(found), found
