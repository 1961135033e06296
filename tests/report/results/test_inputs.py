"""Files of a run that do not belong together are refused."""

from dataclasses import replace
from pathlib import Path

import pytest

from foldvote.errors import UserError
from foldvote.io.files import read_json, write_json
from foldvote.report.results.inputs import read_run
from support.report_run import Made


def test_files_of_different_runs_are_refused(hostile: tuple[Made, str, Path], tmp_path: Path) -> None:
    made = hostile[0]
    certificate = tmp_path / "certificate.json"
    write_json(certificate, read_json(made.files.certificate) | {"data_sha256": "0" * 64})
    with pytest.raises(UserError, match="is of other images than the manifest holds"):
        read_run(replace(made.files, certificate=certificate))
    sidecar = tmp_path / "model=lite0/fold=0/model.json"
    write_json(sidecar, read_json(made.files.sidecars[0]) | {"sha256": "1" * 64})
    with pytest.raises(UserError, match="other weights; run your command again with `-R ensemble`"):
        read_run(replace(made.files, sidecars=[sidecar, made.files.sidecars[1]]))
