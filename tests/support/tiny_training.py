"""The training of one member on the tiny data stage. Imports torch."""

from foldvote.config.runtime import Runtime, Tracking
from foldvote.inference.predict_member import PartFiles, predict_member
from foldvote.io.files import sha256_file
from foldvote.runtime.resources import JobResources
from foldvote.runtime.seeding import MemberSeeds
from foldvote.training.train_member import train_member
from foldvote.training.training_set import MemberInputs
from support.tiny_member import Tiny, recipe


def train(tiny: Tiny, name: str, changes: dict[str, object], workers: int = 0) -> str:
    """Train one member and give the digest of its weights."""
    runtime = Runtime(workers=workers, checkpoint_minutes=1e-6, tracking=Tracking(tensorboard=False))
    given = tiny.root / "given.safetensors" if changes.get("pretrained") else None
    own_metric = tiny.root / str(changes["best_by"]) if str(changes.get("best_by")).endswith(".py") else None
    teachers = (tiny.taught,) if changes.get("distill") else ()
    beside = (tiny.manifest,) if changes.get("metadata") else ()
    inputs = MemberInputs(tiny.pixels, tiny.split, given, metric=own_metric, teachers=teachers, metadata=beside)
    files = tiny.files(name)
    train_member(
        MemberSeeds(1, "tiny", 0),
        recipe(**changes),
        "code",
        inputs,
        tiny.resume / name,
        tiny.root,
        files,
        JobResources(0, 1, runtime),
    )
    return sha256_file(files.weights) + sha256_file(files.last)


def teach(tiny: Tiny, name: str) -> None:
    """Let a trained member predict the images that it was trained on, for students."""
    files, resources = tiny.files(name), JobResources(0, 1, Runtime(predict_batch=16))
    parts = [PartFiles("teach", tiny.pixels, tiny.taught, files.timing.with_name("teach.json"))]
    predict_member(files.weights, files.sidecar, tiny.split, parts, ["identity"], resources)
