"""`foldvote fetch`: download the pretrained weights that a configuration names, and pin them in a lock.

The only command that uses the network; no rule does.
"""

import os
import re
import shutil
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from foldvote.commands.run_checks import all_recipes
from foldvote.config.experiment import Config
from foldvote.config.named_weights import (
    FOLDER,
    LOCK,
    REMOTE_FILES,
    Pin,
    address,
    cached_weights,
    content_digest,
    endpoint,
    local_weights,
    pinned_digest,
    read_lock,
    weights_licence,
    weights_source,
)
from foldvote.errors import UserError
from foldvote.io.download import PATIENT, NotOnServer, Patience, Remote, describe, download
from foldvote.io.files import whole_file, write_json
from foldvote.runtime.locks import folder_lock

_DIGEST_IN_URL = re.compile(r"-([0-9a-f]{8,64})\.pth$")
_TRUE = {"1", "ON", "YES", "TRUE"}


@dataclass(frozen=True)
class Fetched:
    """Weights that are on this machine and pinned.

    Attributes:
        pin: what the lock says of them.
        how: where they came from, for the user.
    """

    pin: Pin
    how: str


def run_fetch(config: Config, source: str, patience: Patience = PATIENT) -> tuple[str, int]:
    """Download the weights that models and the search of a configuration name, where they are not there yet.

    Weights that are whole are pinned at once, so that an interrupted or failed call loses nothing.

    Args:
        config: the configuration.
        source: its file, for messages.
        patience: how long a server may take.

    Returns:
        Lines for a terminal, one for each set of weights, and the exit code: 1 if something failed.
    """
    recipes = all_recipes(config, "net", "pretrained").values()
    names = sorted({name for recipe in recipes if (name := recipe.named_weights)})
    if not names:
        return f"{source}: names no weights of timm (pretrained: true, or a tag); there is nothing to fetch.", 0
    lines, faults = list[str](), list[str]()
    with folder_lock(FOLDER, _log):
        for name in names:
            try:
                fetched = _fetch(name, read_lock().get(name), patience)
                pins = read_lock() | {name: fetched.pin}
                write_json(LOCK, {one: pin.model_dump(mode="json") for one, pin in pins.items()})
                lines.append(_line(name, fetched))
            except UserError as error:
                faults += error.faults
    if lines:
        lines.append(f"Pinned in {LOCK}: commit it with your configuration.")
    return "\n".join([*lines, *faults]), int(bool(faults))


def _fetch(name: str, pin: Pin | None, patience: Patience) -> Fetched:
    """Bring weights into the folder, from there, from Hugging Face's cache or from the network, in this order."""
    there = local_weights(name)
    if there is not None and there.parent == FOLDER:
        digest = pinned_digest(there, pin.sha256 if pin else None)
        return Fetched(pin or _pin(name, there, digest, None), "already there")
    if cached := cached_weights(name, pin):
        digest = pinned_digest(cached, pin.sha256 if pin else content_digest(cached))
        path = FOLDER / (pin.file if pin else f"{name}{cached.suffix}")
        with whole_file(path) as temporary:
            shutil.copyfile(cached, temporary)
        return Fetched(pin or _pin(name, path, digest, cached.parent.name), "copied from the cache of Hugging Face")
    if os.environ.get("HF_HUB_OFFLINE", "").upper() in _TRUE:
        raise UserError(f"{name}: is not on this machine, and HF_HUB_OFFLINE forbids downloads; unset this variable")
    return _downloaded(name, pin, patience)


def _downloaded(name: str, pin: Pin | None, patience: Patience) -> Fetched:
    """Download weights: safetensors if the repository has them, else torch's own format."""
    source = pin.source if pin else weights_source(name)
    if "://" in source:
        stated = _DIGEST_IN_URL.search(source)
        path = FOLDER / (pin.file if pin else f"{name}.pth")
        return _received(name, source, path, pin, Remote(None, stated[1] if stated else None, None), patience)
    files = {end: file for end, file in REMOTE_FILES.items() if not pin or pin.file.endswith(end)} or REMOTE_FILES
    for number, (ending, file) in enumerate(files.items(), start=1):
        url = address(source, pin.revision if pin else None, file)
        try:
            remote = describe(url, _headers(), patience)
        except NotOnServer:
            if number < len(files):
                continue
            raise
        if pin and remote.sha256 and remote.sha256 != pin.sha256:
            raise UserError(
                f"{url}: the server has a file with the SHA-256 {remote.sha256[:12]}..., and {LOCK} pins "
                f"{pin.sha256[:12]}...; ask who runs the server, or delete the entry {name} to take the new file"
            )
        url = address(source, remote.revision or (pin.revision if pin else None), file)
        path = FOLDER / (pin.file if pin else f"{name}{ending}")
        return _received(name, url, path, pin, remote, patience)
    raise AssertionError("the last file is returned or raises")


def _received(name: str, url: str, path: Path, pin: Pin | None, remote: Remote, patience: Patience) -> Fetched:
    """Download weights and say what pins them; `remote` is what the server, or the URL itself, says of them."""
    headers = _headers() if url.startswith(f"{endpoint()}/") else {}
    size = f"{remote.size / 1e6:,.1f} MB" if remote.size else "a file of unknown size"
    _log(f"{name}: downloads {size} from {url}")
    digest = download(url, path, pin.sha256 if pin else remote.sha256 or "", headers, _log, patience)
    if not pin and path.suffix == ".safetensors" and not _is_safetensors(path):
        path.unlink()
        raise UserError(f"{url}: sends something that is no safetensors file; open it in a browser to see what")
    return Fetched(pin or _pin(name, path, digest, remote.revision), f"downloaded from {url}")


def _pin(name: str, path: Path, digest: str, revision: str | None) -> Pin:
    return Pin(
        file=path.name,
        sha256=digest,
        size=path.stat().st_size,
        source=weights_source(name),
        revision=revision,
        licence=weights_licence(name),
    )


def _is_safetensors(path: Path) -> bool:
    """Whether a file begins as safetensors do: the length of a header, and the header, which is a JSON object."""
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        return length < path.stat().st_size and file.read(1) == b"{"


def _headers() -> Mapping[str, str]:
    """What is sent to the server of the repositories: the user's token, if there is one."""
    token = os.environ.get("HF_TOKEN")
    return {"Authorization": f"Bearer {token}"} if token else {}


def _line(name: str, fetched: Fetched) -> str:
    licence = f"licence {fetched.pin.licence}" if fetched.pin.licence else "licence not known, see its page"
    return f"{name}: {fetched.pin.size / 1e6:,.1f} MB, {licence}; {fetched.how}; {FOLDER / fetched.pin.file}"


def _log(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
