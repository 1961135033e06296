"""One member trained by several processes, compared with one process: weights, scores and seconds.

    .venv/bin/snakemake --cores 2 -- prepare                                        # the demo's images, or your own
    .venv/bin/python benchmarks/processes.py --net test_efficientnet_gn --epochs 10
    .venv/bin/python benchmarks/processes.py --configfile my.yaml --model small --gpus 2

One row per variation of the recipe: the largest difference of a weight after the last epoch, between several
processes and one process with as many parts, and with one part; the largest difference of an epoch's validation loss
to the latter; and the last macro-F1 of both. Statistics of batch normalisation are left out, since they come from the
first process's images. Trained in fp32 unless `--precision` says otherwise: the rounding of lower precision would
hide the differences.
"""

import argparse
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "workflow" / "scripts"))

import pandas as pd
from safetensors.torch import load_file

from foldvote.config.experiment import load_config
from foldvote.config.recipe import Recipe
from foldvote.config.runtime import Runtime, Tracking
from foldvote.io.files import read_json
from foldvote.runtime.resources import JobResources
from foldvote.runtime.seeding import MemberSeeds
from foldvote.splits.folds import SplitFiles
from foldvote.training.train_member import MemberFiles, train_member
from foldvote.training.training_set import MemberInputs

VARIATIONS: dict[str, dict[str, object]] = {
    "plain": {},
    "mixup, cutmix, half faces": {"mix": [{"name": name, "p": 0.3} for name in ("mixup", "cutmix", "half_face")]},
    "accumulate 4": {"accumulate": 4},
    "clip_norm 0.1": {"clip_norm": 0.1},
    "ema 0.99": {"ema": 0.99},
    "batch normalisation": {"net": "test_resnet"},
    "dropout 0.3": {"drop_rate": 0.3},
}


def main() -> None:
    """Train every variation three times, and print a table."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--configfile", default="config/config.yaml")
    arguments.add_argument("--model", help="default: the first")
    arguments.add_argument("--net", help="another net than the model's")
    arguments.add_argument("--epochs", type=int, default=10)
    arguments.add_argument("--precision", default="fp32")
    arguments.add_argument("--threads", type=int, default=2, help="of all processes together")
    arguments.add_argument("--processes", type=int, default=2, help="without GPUs")
    arguments.add_argument("--gpus", type=int, default=0)
    given = arguments.parse_args()
    config = load_config(given.configfile)
    recipe = config.models[given.model or next(iter(config.models))].model_dump(mode="json")
    recipe |= {"epochs": given.epochs, "precision": given.precision, "net": given.net or recipe["net"]}
    results, processes = Path(config.results), given.gpus or given.processes
    several = JobResources(given.gpus, given.threads, runtime(given.processes))
    single = JobResources(min(given.gpus, 1), given.threads // processes, runtime(1))
    print(f"{processes} processes{'':<16} weights: in parts   in one  val_loss   macro-F1 of both  seconds of both")
    with tempfile.TemporaryDirectory() as folder:
        for name, changes in VARIATIONS.items():
            own = recipe | changes
            together = train(results, own, several, Path(folder, name, "several"))
            parts = train(
                results, own | {"accumulate": read_json(together.sidecar)["parts"]}, single, Path(folder, name, "parts")
            )
            alone = train(results, own, single, Path(folder, name, "one"))
            several_rows, rows = (pd.read_parquet(files.history) for files in (together, alone))
            print(
                f"  {name:<26} {difference(together, parts):15.1e} {difference(together, alone):8.1e} "
                f"{(several_rows['val_loss'] - rows['val_loss']).abs().max():9.1e}  "
                f"{several_rows['val_macro_f1'].iloc[-1]:8.4f} {rows['val_macro_f1'].iloc[-1]:8.4f}  "
                f"{several_rows['seconds'].sum():6.1f} {rows['seconds'].sum():6.1f}",
                flush=True,
            )


def runtime(processes: int) -> Runtime:
    """Settings with which only the training is timed."""
    return Runtime(workers=1, cpu_processes=processes, checkpoint_minutes=60, tracking=Tracking(tensorboard=False))


def train(results: Path, recipe: dict[str, object], machine: JobResources, out: Path) -> MemberFiles:
    """Train the member of fold 0 on prepared images."""
    own = Recipe.model_validate(recipe)
    pixels = results / f"data/pixels/size={own.size}/roi={own.roi}/train.arrow"
    split = [results / name for name in ("data/classes.json", "folds/folds.parquet", "folds/certificate.json")]
    weights, last, sidecar, history, timing = (
        "model.safetensors",
        "last.safetensors",
        "model.json",
        "h.parquet",
        "t.json",
    )
    files = MemberFiles(*(out / name for name in (weights, last, sidecar, history, timing)))
    inputs = MemberInputs(pixels, SplitFiles(*split), Path(own.pretrained) if own.pretrained else None)
    train_member(MemberSeeds(1, "benchmark", 0), own, "benchmark", inputs, out / "resume", out, files, machine)
    return files


def difference(one: MemberFiles, other: MemberFiles) -> float:
    """The largest difference of a weight."""
    states = [load_file(files.last) for files in (one, other)]
    names = [name for name in states[0] if not name.endswith(("running_mean", "running_var", "num_batches_tracked"))]
    return max(float((states[0][name].double() - states[1][name].double()).abs().max()) for name in names)


if __name__ == "__main__":
    main()
