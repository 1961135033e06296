"""Where corrections are found, and which of them are applied; what they mean is tested with each layout."""

from foldvote.data.entries import entries
from support.data_folders import config_for, maskbase_folder, put_csv
from support.layouts import layout_faults, with_corrections


def test_corrections_are_found_from_the_working_directory_first(tmp_path, monkeypatch):
    root = maskbase_folder(tmp_path / "d")
    config = with_corrections(root, [("000001", "gender", "female", "male", "certain")])
    put_csv(tmp_path / "fixes.csv", ["id", "field", "from", "to", "source", "certainty"], [])
    assert len(entries(config, "train").corrections["applied"]) == 1
    monkeypatch.chdir(tmp_path)
    assert entries(config, "train").corrections["applied"] == []
    (told,) = layout_faults(config_for(root, corrections="nowhere.csv"))
    assert "nowhere.csv" in told
