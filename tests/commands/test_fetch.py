"""`foldvote fetch` against a server on the loopback interface: what it brings, and each failure in one line."""

import hashlib
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save

from foldvote.commands import fetch
from foldvote.commands.__main__ import main
from foldvote.commands.fetch import run_fetch
from foldvote.commands.run_checks import all_recipes, check_files
from foldvote.commands.weights_check import check_digests
from foldvote.config.named_weights import (
    LOCK,
    expected_digest,
    local_weights,
    read_lock,
    weights_path,
)
from foldvote.errors import UserError
from foldvote.io import download
from foldvote.io.download import Patience
from support.data_folders import config_for, maskbase_folder
from support.local_hub import COMMIT, Hub, local_hub
from support.snakemake_run import CONFIG, ROOT, write_config

NAME = "test_resnet.r160_in1k"
REMOTE = f"timm/{NAME}/model.safetensors"
FILE = Path(f"resources/weights/{NAME}.safetensors")
CONTENT = save({"w": np.arange(90_000, dtype=np.float32)})
DIGEST = hashlib.sha256(CONTENT).hexdigest()
QUICK = Patience(timeout=0.5, tries=3, pause=0.01, window=0.2, least=1000)


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """A working directory without weights, an empty cache, and the server."""
    monkeypatch.chdir(tmp_path)
    for name in ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "HF_TOKEN", "HF_HUB_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "huggingface"))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1,localhost")
    with local_hub() as served:
        monkeypatch.setenv("HF_ENDPOINT", served.endpoint)
        served.files[REMOTE] = CONTENT
        yield served


def configured(**recipe: Any) -> Any:
    root = Path("data")
    if not root.exists():
        maskbase_folder(root)
    return config_for(root, models={"a": {"net": "test_resnet", "size": "64x48", "pretrained": True} | recipe})


def fetched(**recipe: Any) -> tuple[list[str], int]:
    text, code = run_fetch(configured(**recipe), "my.yaml", QUICK)
    return text.splitlines(), code


def refused(*told: str, **recipe: Any) -> None:
    """It fails in one line, nothing is pinned, and no file lies under the name."""
    lines, code = fetched(**recipe)
    assert code == 1 and len(lines) == 1, lines
    assert all(text in lines[0] for text in told), lines
    assert not FILE.exists() and NAME not in read_lock()


def cached(content: bytes = CONTENT, linked: bool = True) -> Path:
    """Put a file into the cache of Hugging Face, as its own library does."""
    folder = Path("huggingface/hub") / f"models--timm--{NAME}"
    (folder / "blobs").mkdir(parents=True)
    (folder / "refs").mkdir()
    (folder / "refs/main").write_text(COMMIT)
    path = folder / f"snapshots/{COMMIT}/model.safetensors"
    path.parent.mkdir(parents=True)
    blob = folder / "blobs" / hashlib.sha256(content).hexdigest()
    (blob if linked else path).write_bytes(content)
    if linked:
        path.symlink_to(Path("../../blobs") / blob.name)
    return path


def test_weights_are_downloaded_pinned_and_told_with_size_and_licence(hub: Hub) -> None:
    (line, last), code = fetched()
    assert code == 0 and FILE.read_bytes() == CONTENT
    assert line.startswith(f"{NAME}: 0.4 MB, licence apache-2.0; downloaded from {hub.endpoint}/timm/{NAME}/resolve/")
    assert last == "Pinned in resources/weights.lock: commit it with your configuration."
    assert json.loads(LOCK.read_text()) == {
        NAME: {
            "file": FILE.name,
            "licence": "apache-2.0",
            "revision": COMMIT,
            "sha256": DIGEST,
            "size": len(CONTENT),
            "source": f"timm/{NAME}",
        }
    }
    assert {path.name for path in FILE.parent.iterdir()} == {FILE.name, "lock"}
    assert check_digests(all_recipes(configured(), "pretrained").values()) == []
    hub.asked.clear()
    before = LOCK.read_bytes()
    assert "already there" in fetched()[0][0] and hub.asked == [] and LOCK.read_bytes() == before


def test_on_another_machine_the_lock_brings_the_pinned_commit(hub: Hub) -> None:
    fetched()
    FILE.unlink()
    hub.asked.clear()
    assert fetched()[1] == 0 and FILE.read_bytes() == CONTENT
    assert all(f"/resolve/{COMMIT}/" in path for _, path, _ in hub.asked if "/resolve/" in path)


def test_the_token_is_given_to_the_hub_and_to_no_other_host(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    hub.renamed["timm/" + NAME] = "others/moved"
    hub.files["others/moved/model.safetensors"] = CONTENT
    assert fetched()[1] == 0
    given = {path.startswith("/cdn"): headers.get("authorization") for _, path, headers in hub.asked}
    assert given == {False: "Bearer hf_secret", True: None}


def test_broken_transfers_go_on_where_they_ended(hub: Hub) -> None:
    hub.breaks = [100_000, 50_000, 50_000, 50_000]  # more than the tries that may bring nothing
    assert fetched()[1] == 0 and FILE.read_bytes() == CONTENT
    ranges = [headers.get("range") for method, path, headers in hub.asked if method == "GET" and "/cdn/" in path]
    assert ranges == [None, "bytes=100000-", "bytes=150000-", "bytes=200000-", "bytes=250000-"]


def test_a_later_call_goes_on_where_an_earlier_one_gave_up(hub: Hub) -> None:
    hub.breaks = [200_000, 0, 0, 0]
    refused("no answer, or not all of it (it ended after 200,000 of 360,")
    hub.asked.clear()
    assert fetched()[1] == 0 and FILE.read_bytes() == CONTENT
    assert [headers.get("range") for method, _, headers in hub.asked if method == "GET"][-1] == "bytes=200000-"
    assert not list(FILE.parent.glob(".*"))


def test_a_server_without_ranges_sends_all_again(hub: Hub) -> None:
    hub.breaks, hub.ranges = [100_000], False
    assert fetched()[1] == 0 and FILE.read_bytes() == CONTENT


def test_a_wrong_content_is_deleted(hub: Hub) -> None:
    hub.spoilt = True
    refused("arrived with the SHA-256", f"not {DIGEST[:12]}...", "was deleted")
    assert not list(FILE.parent.glob(".*"))
    hub.spoilt = False
    assert fetched()[1] == 0


def test_a_server_that_states_no_digest_is_believed_once(hub: Hub) -> None:
    hub.digests = False
    assert fetched()[1] == 0
    hub.spoilt = True
    FILE.unlink()
    lines, code = fetched()
    assert code == 1 and "arrived with the SHA-256" in lines[0] and not FILE.exists()


def test_a_page_in_place_of_weights_is_refused(hub: Hub) -> None:
    hub.files[REMOTE] = b"<html>Please log in</html>" * 9
    refused("sends something that is no safetensors file")


def test_without_safetensors_the_other_format_is_taken(hub: Hub) -> None:
    hub.files = {f"timm/{NAME}/pytorch_model.bin": CONTENT}
    assert fetched()[1] == 0 and read_lock()[NAME].file == f"{NAME}.bin"
    assert local_weights(NAME) == FILE.with_suffix(".bin")


@pytest.mark.parametrize("prefix", [DIGEST[:8], "0123456789"])
def test_weights_outside_the_hub_are_compared_by_the_digest_in_their_url(
    hub: Hub, monkeypatch: pytest.MonkeyPatch, prefix: str
) -> None:
    hub.files[f"releases/net-{prefix}.pth"] = CONTENT
    url = f"http://localhost:{hub.port}/cdn/releases/net-{prefix}.pth"
    monkeypatch.setattr(fetch, "weights_source", lambda _name: url)
    lines, code = fetched()
    if DIGEST.startswith(prefix):
        assert code == 0 and read_lock()[NAME].source == url and FILE.with_suffix(".pth").read_bytes() == CONTENT
    else:
        assert code == 1 and len(lines) == 1 and "arrived with the SHA-256" in lines[0]


@pytest.mark.parametrize("code", [500, 503, 429])
def test_a_failure_that_passes_is_waited_for(hub: Hub, code: int) -> None:
    hub.answers = [(code, "", {"Retry-After": "0"}), (code, "", {})]
    assert fetched()[1] == 0 and hub.count()["HEAD resolve"] == 3


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        ((500, "", {}), ["the server answers 500 Internal Server Error; try again later"]),
        ((404, "RepoNotFound", {}), ["pytorch_model.bin: the server has no such file (404 RepoNotFound)"]),
        ((401, "GatedRepo", {}), ["wants an account that may read it (401 GatedRepo)", "HF_TOKEN"]),
        ((403, "", {}), ["wants an account", "403"]),
        ((400, "", {}), ["the server answers 400 Bad Request"]),
        ((302, "", {"Location": f"/timm/{NAME}/resolve/main/model.safetensors"}), ["the server answers 302", "loop"]),
        ((302, "", {"Location": "file:///etc/passwd"}), ["the server answers 302", "not allowed"]),
    ],
)
def test_a_refusal_is_one_line_with_the_url(hub: Hub, answer: tuple[int, str, dict], told: list[str]) -> None:
    hub.answers, hub.for_ever = [answer], True
    refused(f"{hub.endpoint}/timm/{NAME}/resolve/main/", *told)


def test_a_server_that_does_not_answer_in_time_is_told(hub: Hub) -> None:
    hub.slow = 1.0
    refused("no answer, or not all of it (timed out)")


def test_a_server_that_trickles_is_told(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(download, "_BLOCK", 64)
    clock = iter(np.arange(0, 1e6, 0.05))
    monkeypatch.setattr(download.time, "monotonic", lambda: next(clock))
    hub.ranges = False
    refused("bytes in 0.2 seconds")


def test_no_server_is_told_at_once(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{free.getsockname()[1]}")
    monkeypatch.setattr(download.time, "sleep", lambda _seconds: pytest.fail("there is nothing to wait for"))
    refused("no answer, or not all of it (", "Connection refused); run the command again with a network")
    monkeypatch.setenv("HF_ENDPOINT", "my-mirror")
    refused("HF_ENDPOINT: 'my-mirror' is not a URL")


def test_a_full_disk_is_told_before_the_download(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(download.shutil, "disk_usage", lambda _path: type("Usage", (), {"free": 1000}))
    refused("too little space for the 0.4 MB of")


def test_nothing_is_downloaded_where_the_user_forbids_it(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    refused("HF_HUB_OFFLINE forbids downloads")
    assert hub.asked == []


def test_what_works_is_pinned_although_something_else_fails(hub: Hub) -> None:
    models = {net: {"net": net, "size": "64x48", "pretrained": True} for net in ("test_resnet", "test_vit")}
    models["scratch"] = {"net": "resnet18"}
    text, code = run_fetch(config_for(maskbase_folder(Path("data")), models=models), "my.yaml", QUICK)
    assert code == 1 and len(text.splitlines()) == 3 and "test_vit.r160_in1k" in text.splitlines()[-1]
    assert list(read_lock()) == [NAME] and FILE.is_file()


def test_what_a_search_can_reach_is_fetched_too(hub: Hub) -> None:
    other = "test_resnet2.made_up"
    space = {"net": {"choice": ["test_resnet", "test_vit"]}, "pretrained": {"choice": [True, None]}}
    hub.files["timm/test_vit.r160_in1k/model.safetensors"] = CONTENT
    models = {"a": {"net": "test_resnet", "size": "64x48"}}
    config = config_for(maskbase_folder(Path("data")), models=models, tune={"space": space, "trials": 2})
    text, code = run_fetch(config, "my.yaml", QUICK)
    assert code == 0 and set(read_lock()) == {NAME, "test_vit.r160_in1k"} and other not in text


def test_a_file_that_differs_from_the_lock_is_refused(hub: Hub) -> None:
    fetched()
    FILE.write_bytes(CONTENT[:-1] + b"x")
    with pytest.raises(UserError, match=r"has the SHA-256 .*, not .*resources/weights\.lock.*foldvote fetch") as told:
        check_digests(all_recipes(configured(), "pretrained").values())
    assert len(told.value.faults) == 1
    lines, code = fetched()
    assert code == 1 and len(lines) == 1 and "has the SHA-256" in lines[0]
    FILE.write_bytes(b"short")
    with pytest.raises(UserError, match=r"one of another size; delete it and run `foldvote fetch my\.yaml`"):
        check_files(configured(), "foldvote fetch my.yaml")


def test_a_server_with_another_file_than_the_pinned_one_is_told_before_the_download(hub: Hub) -> None:
    fetched()
    FILE.unlink()
    hub.files[REMOTE] = save({"w": np.zeros(5)})
    hub.asked.clear()
    lines, code = fetched()
    assert code == 1 and len(lines) == 1 and f"resources/weights.lock pins {DIGEST[:12]}..." in lines[0]
    assert hub.count()["GET resolve"] == 0


@pytest.mark.parametrize("linked", [True, False])
def test_the_cache_of_hugging_face_serves_runs_and_the_command(hub: Hub, linked: bool) -> None:
    path = cached(linked=linked)
    check_files(configured(), "foldvote fetch my.yaml")
    assert weights_path(NAME) == path.absolute() and expected_digest(NAME) == DIGEST
    (note,) = check_digests(all_recipes(configured(), "pretrained").values())
    assert "nothing pins them; `foldvote fetch` does" in note
    (line, _), code = fetched()
    assert code == 0 and "copied from the cache of Hugging Face" in line and hub.asked == []
    assert FILE.read_bytes() == CONTENT and not FILE.is_symlink() and read_lock()[NAME].revision == COMMIT
    assert weights_path(NAME) == FILE and expected_digest(NAME) == DIGEST


def test_a_spoilt_file_in_the_cache_is_told(hub: Hub) -> None:
    path = cached()
    path.resolve().write_bytes(CONTENT[:-1] + b"x")
    with pytest.raises(UserError, match="has the SHA-256"):
        check_digests(all_recipes(configured(), "pretrained").values())


def test_another_version_in_the_cache_than_the_pinned_one_is_passed_over(hub: Hub) -> None:
    fetched()
    FILE.unlink()
    cached(save({"w": np.zeros(5)}))
    assert local_weights(NAME) is None
    assert "downloaded" in fetched()[0][0]


def test_a_file_that_was_put_into_the_folder_is_pinned_without_a_network(hub: Hub) -> None:
    FILE.parent.mkdir(parents=True)
    FILE.write_bytes(CONTENT)
    assert "already there" in fetched()[0][0] and read_lock()[NAME].sha256 == DIGEST and hub.asked == []


@pytest.mark.parametrize("content", ["{", '{"a": {}}', '{"a": 1}', "<<<<<<< HEAD\n{}", '{"a": {"file": "../x"}}'])
def test_a_damaged_lock_is_one_line(hub: Hub, content: str) -> None:
    LOCK.parent.mkdir()
    LOCK.write_text(content)
    lines, code = fetched()
    assert code == 1 and len(lines) == 1 and lines[0].startswith("resources/weights.lock: ")


def test_missing_weights_are_told_with_command_and_url_within_a_second(hub: Hub) -> None:
    config, started = configured(), time.monotonic()
    with pytest.raises(UserError) as told:
        check_files(config, "foldvote fetch my.yaml")
    assert time.monotonic() - started < 1
    assert told.value.faults == (
        f"models.a.pretrained: the weights {NAME} are not on this machine; run `foldvote fetch my.yaml`, which "
        f"downloads {hub.endpoint}/timm/{NAME}/resolve/main/model.safetensors",
    )
    with pytest.raises(UserError, match=r"or set resources/weights/tf_efficientnet_lite1\.safetensors, which comes"):
        check_files(configured(net="tf_efficientnet_lite1"), "foldvote fetch my.yaml")
    assert hub.asked == []


def test_a_text_that_is_neither_a_file_nor_a_tag_is_told_with_the_tags(hub: Hub) -> None:
    with pytest.raises(UserError, match=r"a1_in1 is not there; .*did you mean 'a1_in1k'\?"):
        check_files(configured(net="resnet50", pretrained="a1_in1"), "foldvote fetch my.yaml")


def test_the_command_takes_the_file_as_an_argument(hub: Hub, capsys: pytest.CaptureFixture[str]) -> None:
    write_config(Path(), models={"tiny": CONFIG["models"]["tiny"] | {"pretrained": True}})
    assert main(["fetch", "config.yaml"]) == 0 and capsys.readouterr().out.startswith(f"{NAME}: 0.4 MB")
    write_config(Path())
    assert main(["fetch", "--configfile", "config.yaml"]) == 0
    assert "there is nothing to fetch" in capsys.readouterr().out


def test_the_command_needs_no_data(hub: Hub, capsys: pytest.CaptureFixture[str]) -> None:
    net = {"net": "test_resnet", "size": "64x48", "pretrained": True}
    Path("home.yaml").write_text(json.dumps({"data": {"layout": "maskbase"}, "models": {"a": net}}), encoding="utf-8")
    assert main(["fetch", "home.yaml"]) == 0 and capsys.readouterr().out.startswith(f"{NAME}: 0.4 MB")


def test_the_command_needs_no_torch() -> None:
    code = "import sys; import foldvote.commands.fetch; print(sys.modules.keys() & {'torch', 'timm', 'pandas'})"
    environment = os.environ | {"PYTHONPATH": str(ROOT / "workflow/scripts")}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"
