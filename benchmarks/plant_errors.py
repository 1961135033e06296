"""Write label errors as a corrections file, so that a run is trained on them: for benchmarks/label_errors.py --truth.

    python benchmarks/plant_errors.py results/data/manifest/split=train/manifest.parquet planted.csv
    snakemake --config results=wrong corrections=$PWD/planted.csv 'corrections_certainty=[planted]' ...
    python benchmarks/label_errors.py --results wrong --truth results/data/manifest/split=train/manifest.parquet

For data in the home task's folders, the demo included. Each kind of error gets other persons: a gender is flipped, an
age is moved to the next band, two photographs of different mask states are swapped. If the manifest had corrections,
the planted file replaces them, so the errors that they had corrected count as errors, too.
"""

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "workflow" / "scripts"))

import numpy as np
import pandas as pd

from foldvote.io.csv_files import write_csv
from foldvote.runtime.seeding import generator


def main() -> None:
    """Draw the errors and write them."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("manifest", type=Path)
    arguments.add_argument("corrections", type=Path)
    arguments.add_argument("--share", type=float, default=0.04, help="of the persons, for each kind of error")
    arguments.add_argument("--seed", type=int, default=0)
    given = arguments.parse_args()
    rows = list(errors(pd.read_parquet(given.manifest), given.share, generator(given.seed, "plant")))
    table = pd.DataFrame(rows, columns=["id", "field", "from", "to"], dtype="str")
    write_csv(table.assign(source="planted", certainty="planted"), given.corrections)
    print(f"{given.corrections}: {len(table)} errors")


def errors(manifest: pd.DataFrame, share: float, draws: np.random.Generator) -> Iterator[tuple[str, str, str, str]]:
    """Rows of a corrections file, without source and certainty; a person with corrections is left unchanged."""
    persons = {name: rows for name, rows in manifest.groupby("profile") if not rows["corrected"].any()}
    names = draws.permutation(list(persons))
    count = max(1, round(share * manifest["profile"].nunique()))
    levels = {
        field: manifest.sort_values("label")[field].drop_duplicates().tolist() for field in ("gender", "age")
    }  # by label: ages from young to old
    for place, field in enumerate(levels):
        for name in names[place * count : (place + 1) * count]:
            now = persons[name][field].iloc[0]
            at = levels[field].index(now)
            others = [levels[field][next_] for next_ in (at - 1, at + 1) if 0 <= next_ < len(levels[field])]
            yield name, field, now, str(draws.choice(others))
    for name in names[2 * count : 3 * count]:
        shots = persons[name]
        first = draws.choice(len(shots))
        second = draws.choice(np.flatnonzero(shots["mask"] != shots["mask"].iloc[first]))
        yield name, "shots", *(PurePosixPath(shots["path"].iloc[at]).stem for at in (first, second))


if __name__ == "__main__":
    main()
