"""What the checks of `make test-gpu` share: tiny data, and trainings and predictions on the device."""

from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr
from dataclasses import dataclass
from functools import cached_property
from io import StringIO
from pathlib import Path
from typing import Any

import pandas as pd
from check import Skipped

from foldvote.config.data import Images
from foldvote.config.runtime import Runtime, Tracking
from foldvote.data.packed_images import pack_images
from foldvote.inference.predict_member import PartFiles, predict_member
from foldvote.io.files import read_json, sha256_file
from foldvote.runtime.resources import JobResources
from foldvote.runtime.seeding import MemberSeeds
from foldvote.training.train_member import train_member
from foldvote.training.training_set import MemberInputs
from support.tiny_member import Tiny, make_tiny, recipe

EVERYTHING = {"clip_norm": 0.5, "accumulate": 2, "ema": 0.9, "drop_rate": 0.1}  # on top of the precision
SQUARE, LARGE = "32x32", "160x160"


@contextmanager
def quiet() -> Iterator[None]:
    """Keep the log of the block, and show it only if the block fails."""
    with redirect_stderr(StringIO()) as words:
        try:
            yield
        except BaseException:
            print(words.getvalue())
            raise


@dataclass
class Trained:
    """What a training left: digest of the weights, sidecar, history, and the files themselves."""

    digest: str
    sidecar: dict[str, Any]
    history: pd.DataFrame
    weights: Path


@dataclass
class Bench:
    """Where the checks work, and on what: `gpus` is what a job of one device is granted, `count` what there is."""

    root: Path
    gpus: int
    count: int

    @cached_property
    def tiny(self) -> Tiny:
        """Drawn images, packed, with a split."""
        return make_tiny(self.root, persons=24)

    def packed(self, size: str) -> Path:
        """The same images, packed at another size."""
        path = self.root / f"{size}.arrow"
        if not path.exists():
            pack_images(self.tiny.manifest, self.root, Images(min_side=8), size, "none", path, workers=1)
        return path

    def need_gpu(self, number: int = 1) -> None:
        """Skip a check that needs so many GPUs."""
        if self.count < number:
            raise Skipped(f"needs {number} GPU(s), there is {self.count or 'none'}")

    def train(
        self,
        name: str,
        gpus: int | None = None,
        pixels: Path | None = None,
        settings: dict[str, Any] | None = None,
        given: Path | None = None,
        **changes: Any,
    ) -> Trained:
        """Train a member of the tiny recipe with these changes, on one device unless `gpus` says otherwise."""
        runtime = Runtime.model_validate({"workers": 0, **(settings or {})} | {"tracking": Tracking(tensorboard=False)})
        resources = JobResources(self.gpus if gpus is None else gpus, 1, runtime)
        inputs, files = MemberInputs(pixels or self.tiny.pixels, self.tiny.split, given), self.tiny.files(name)
        arguments = (MemberSeeds(1, "tiny", 0), recipe(**changes), "code", inputs, self.tiny.resume / name, self.root)
        with quiet():
            train_member(*arguments, files, resources)
        digest = sha256_file(files.weights) + sha256_file(files.last)
        return Trained(digest, read_json(files.sidecar), pd.read_parquet(files.history), files.weights)

    def twice(self, name: str, **changes: Any) -> Trained:
        """Train the same member twice and compare the bytes."""
        one, other = self.train(name, **changes), self.train(f"{name}-again", **changes)
        assert one.digest == other.digest, f"{name}: the bytes of two trainings differ"
        assert one.sidecar["reproducible"] is True
        assert one.history["val_loss"].notna().all()
        return one

    def predict(self, name: str, gpus: int) -> pd.DataFrame:
        """Logits of a trained member's validation images."""
        files, out = self.tiny.files(name), self.root / f"{name}-{gpus}.parquet"
        resources = JobResources(gpus, 1, Runtime())
        parts = [PartFiles("oof", self.tiny.pixels, out, self.root / "timing.json")]
        with quiet():
            predict_member(files.weights, files.sidecar, self.tiny.split, parts, ["identity", "hflip"], resources)
        return pd.read_parquet(out).filter(like="logit")
