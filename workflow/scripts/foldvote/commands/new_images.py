"""What the target `predict` needs, checked before any job."""

from pathlib import Path

from foldvote.config.experiment import Config
from foldvote.data.file_listing import new_files
from foldvote.io.run_files import run_fault


def new_images_faults(config: Config) -> list[str]:
    """One line for each reason why the target `predict` cannot run.

    Args:
        config: the configuration.
    """
    faults = [fault for fault in [run_fault(config.results)] if fault]
    if config.new is None:
        example = "snakemake --cores 8 predict --config new=FOLDER"
        return [*faults, f"new: missing: name a folder of images, or a table (.csv, .parquet) of them: `{example}`"]
    new = Path(config.new)
    try:
        if not new.exists():
            faults.append(f"new: {new} is not there; correct the path")
        elif not new.is_dir() and new.suffix.lower() not in (".csv", ".parquet", ".pq"):
            faults.append(f"new: {new} is neither a folder nor a table (.csv, .parquet); name one of these")
        elif new.is_dir() and next(new_files(new, Path(config.results)), None) is None:
            faults.append(f"new: {new} holds no images; name the folder that does, or a table")
    except OSError as error:
        faults.append(f"new: {error.filename or new}: cannot be read ({error.strerror}); correct it")
    return faults
