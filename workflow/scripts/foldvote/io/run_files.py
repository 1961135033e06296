"""The files by which a finished run is known."""

from pathlib import Path

_NEEDED = ("ensemble/weights.json", "ensemble/prediction.json", "ensemble/oof.parquet", "data/classes.json")


def run_fault(results: str | Path) -> str | None:
    """Why a folder holds no finished run, whose ensemble could be used; None if it does.

    Args:
        results: the folder of the run.
    """
    absent = [name for name in _NEEDED if not Path(results, name).is_file()]
    return f"{results}: is no finished run ({absent[0]} is missing); run the workflow to its end" if absent else None
