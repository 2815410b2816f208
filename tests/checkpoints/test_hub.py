"""The official files by name, from a server on this machine that speaks the hub's protocol."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from types import SimpleNamespace

import huggingface_hub
import pytest
import torch
from huggingface_hub import constants
from PIL import Image

import seem
from seem.checkpoints import CheckpointError, hub, load_network
from seem.checkpoints.registry import MODELS, HubModel
from seem.cli import main
from seem.model.official_config import OFFICIAL_VARIANTS
from seem.model.official_seem import OfficialSEEM
from tests.official import FAMILY, reduced_variants, write_official

V1 = "seem-focal-t-v1"
FILE = "seem_focalt_v1.pt"
CHUNK = 1 << 16
COMMIT = "c0ffee" + "0" * 34


@dataclass
class Server:
    """What the hub answers, how it misbehaves, and what it was asked."""

    url: str = ""
    files: dict[str, bytes] = field(default_factory=dict)
    etag: str | None = None  # instead of the content's sha256
    break_after: int | None = None  # bytes of the first transfer that arrive
    status: int = 200
    asked: list[tuple[str, str, str | None]] = field(default_factory=list)  # method, path, range

    @property
    def transfers(self) -> list[str | None]:
        """The Range header of every GET of a file (the client asks for other things too)."""
        return [wanted for method, path, wanted in self.asked if method == "GET" and "/resolve/" in path]


def answer(server: Server) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_HEAD(self) -> None:
            self.respond(body=False)

        def do_GET(self) -> None:
            self.respond(body=True)

        def respond(self, body: bool) -> None:
            wanted = self.headers.get("Range")
            server.asked.append((self.command, self.path, wanted))
            file = self.path.rsplit("/", 1)[-1]
            known = self.path in (f"/{hub.REPOSITORY}/resolve/{r}/{file}" for r in ("main", COMMIT))
            if server.status != 200 or not known or file not in server.files:
                self.send_response(server.status if server.status != 200 else 404)
                if server.status == 200:
                    self.send_header("X-Error-Code", "EntryNotFound")
                self.send_header("X-Repo-Commit", COMMIT)
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            content = server.files[file]
            start = int(wanted.removeprefix("bytes=").split("-")[0]) if wanted else 0
            self.send_response(206 if wanted else 200)
            if wanted:
                self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
            self.send_header("ETag", f'"{server.etag or hashlib.sha256(content).hexdigest()}"')
            self.send_header("X-Repo-Commit", COMMIT)
            self.send_header("Accept-Ranges", "bytes")
            self.send_header("Content-Length", str(len(content) - start))
            self.end_headers()
            if body and server.break_after is not None:
                self.wfile.write(content[start : start + server.break_after])
                server.break_after = None
                self.close_connection = True
            elif body:
                self.wfile.write(content[start:])

        def log_message(self, *args: object) -> None:
            pass

    return Handler


@pytest.fixture(scope="module", autouse=True)
def _small() -> Iterator[None]:
    with reduced_variants(*FAMILY):
        yield


@pytest.fixture(scope="module")
def contents(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    folder = tmp_path_factory.mktemp("published")
    return {
        FILE: write_official(folder / "1.pt", V1).read_bytes(),
        "seem_focalt_v0.pt": write_official(folder / "0.pt", "seem-focal-t-v0", seed=1).read_bytes(),
    }


@pytest.fixture
def server(contents: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    state = Server(files=dict(contents))
    http = ThreadingHTTPServer(("127.0.0.1", 0), answer(state))
    thread = Thread(target=http.serve_forever, daemon=True)
    thread.start()
    state.url = f"http://127.0.0.1:{http.server_port}"
    # the hub's package reads the environment once, when it is imported
    monkeypatch.setattr(constants, "ENDPOINT", state.url)
    monkeypatch.setattr(
        constants, "HUGGINGFACE_CO_URL_TEMPLATE", state.url + "/{repo_id}/resolve/{revision}/{filename}"
    )
    monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", CHUNK)  # 10 MB would be all of these files
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setenv("SEEM_CACHE", str(tmp_path / "seem"))
    yield state
    http.shutdown()
    http.server_close()
    thread.join()


def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)


def leftovers(folder: Path) -> list[str]:
    return [p.name for p in folder.rglob("*") if p.is_file() and p.suffix in (".safetensors", ".tmp")]


def test_a_name_is_all_it_takes(server: Server) -> None:
    model = seem.load(V1, device="cpu")
    assert model.name == V1
    assert server.transfers == [None]
    path = hub.converted_path(V1)
    assert path.is_file()
    assert model.weights == load_network(path)[1]


def test_the_second_load_asks_nobody(server: Server) -> None:
    first = load_network(V1)[1]
    server.asked.clear()
    assert load_network(V1)[1] == first
    assert server.asked == []


def test_two_names_share_a_file(server: Server) -> None:
    _, v0 = load_network("seem-focal-t-v0")
    network, demo = load_network("seem-focal-t-demo")
    assert network.config.name == "seem-focal-t-demo"
    assert v0 != demo
    assert server.transfers == [None]


def test_resumes_a_broken_transfer(server: Server) -> None:
    server.break_after = 1_000_000
    load_network(V1)
    assert server.transfers == [None, f"bytes={1_000_000 // CHUNK * CHUNK}-"]


def test_gives_up_on_a_transfer_that_stays_short(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    def short(*args: object, **options: object) -> str:
        raise OSError("Consistency check failed: file should be of size 10 but has size 5")

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", short)
    with pytest.raises(hub.DownloadError, match=f"{FILE} was not fetched whole .* size 10 but has size 5"):
        load_network(V1)


def test_a_wrong_hash_is_refused_and_forgotten(server: Server, tmp_path: Path) -> None:
    good = server.files[FILE]
    server.etag = hashlib.sha256(good).hexdigest()
    server.files[FILE] = good[:-1] + bytes([good[-1] ^ 1])
    with pytest.raises(hub.DownloadError, match=f"{FILE} was damaged: its sha256 is .*, the hub states {server.etag}"):
        load_network(V1)
    assert leftovers(tmp_path) == []
    server.files[FILE] = good
    load_network(V1)


def test_a_server_without_hashes_is_not_trusted(server: Server, tmp_path: Path) -> None:
    server.etag = "5d41402abc4b2a76b9719d911017c592"
    with pytest.raises(hub.DownloadError, match="states no sha256"):
        load_network(V1)
    assert server.transfers == []


def test_offline_with_the_published_file(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    load_network("seem-focal-t-v0")
    server.asked.clear()
    offline(monkeypatch)
    assert load_network("seem-focal-t-demo")[0].config.name == "seem-focal-t-demo"
    assert server.asked == []


def test_offline_with_the_converted_file(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    load_network(V1)
    shutil.rmtree(tmp_path / "hub")
    offline(monkeypatch)
    load_network(V1)


def test_offline_with_nothing(
    server: Server, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    offline(monkeypatch)
    with pytest.raises(hub.DownloadError, match=f"{FILE} is not in the cache and cannot be fetched .* seem convert"):
        load_network(V1)
    photo = tmp_path / "photo.png"
    Image.new("RGB", (40, 40)).save(photo)
    assert main(["segment", str(photo), "--click", "3,3", "--model", V1, "--json"]) == 1
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.count("\n") == 1
    assert FILE in printed.err


@pytest.mark.parametrize("status", [404, 401, 500])
def test_a_hub_that_has_it_not(server: Server, status: int, monkeypatch: pytest.MonkeyPatch) -> None:
    server.files.clear()
    server.status = 200 if status == 404 else status
    with pytest.raises(hub.DownloadError, match="cannot be fetched from xdecoder/SEEM") as caught:
        load_network(V1)
    assert "\n" not in str(caught.value)


def test_no_room(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=1000, total=2000, used=1000))
    with pytest.raises(hub.DownloadError, match=f"no room for {FILE}: .* has 0 MB left"):
        load_network(V1)
    assert server.transfers == []


def test_no_room_for_the_conversion(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(tensors: object, path: Path, metadata: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("seem.checkpoints.official.save_file", full)
        with pytest.raises(hub.DownloadError, match=r"cannot be converted to .* No space left"):
            load_network(V1)
    assert leftovers(tmp_path) == []
    load_network(V1)
    assert server.transfers == [None]


def test_another_file_under_the_name(server: Server) -> None:
    server.files[FILE] = b"an error page"
    with pytest.raises(CheckpointError, match="not a complete PyTorch file"):
        load_network(V1)


def test_a_damaged_cache_is_named(server: Server) -> None:
    load_network(V1)
    path = hub.converted_path(V1)
    path.write_bytes(path.read_bytes()[:-5])
    with pytest.raises(CheckpointError, match=str(path)):
        load_network(V1)


def test_variants_without_a_file() -> None:
    with pytest.raises(ValueError, match=r"seem convert FILE\.pt OUT --as seem-davit-d3-v1"):
        hub.fetch("seem-davit-d3-v1")


def test_models_are_listed(server: Server, capsys: pytest.CaptureFixture[str]) -> None:
    named = {n for n, m in MODELS.items() if isinstance(m, HubModel)}
    assert named == {n for n, c in OFFICIAL_VARIANTS.items() if c.checkpoint}
    assert main(["models"]) == 0
    printed = capsys.readouterr().out
    assert "seem-focal-l-v0  1365 MB from huggingface.co/xdecoder/SEEM (seem_focall_v0.pt) on first use" in printed
    assert "seem-sam-vit-l-v1  1762 MB" in printed


@pytest.mark.parametrize("name", ["seem-focal-l-v1", "seem-sam-vit-b-v1", "seem-sam-vit-l-v1"])
def test_stated_sizes_are_true(name: str) -> None:
    with torch.device("meta"):
        network = OfficialSEEM(OFFICIAL_VARIANTS[name])
    model = MODELS[name]
    assert isinstance(model, HubModel)
    assert model.parameters == sum(p.numel() for p in network.parameters())


def test_cache_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("SEEM_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(sys, "platform", "linux")
    assert hub.cache_dir() == tmp_path / "seem"
    monkeypatch.setattr(sys, "platform", "darwin")
    assert hub.cache_dir() == Path.home() / "Library" / "Caches" / "seem"
    monkeypatch.setattr(sys, "platform", "win32")
    monkeypatch.setenv("LOCALAPPDATA", str(tmp_path / "local"))
    assert hub.cache_dir() == tmp_path / "local" / "seem" / "Cache"
    monkeypatch.setenv("SEEM_CACHE", str(tmp_path / "own"))
    assert hub.cache_dir() == tmp_path / "own"


@pytest.mark.slow
def test_the_environment_is_honoured(server: Server, tmp_path: Path) -> None:
    """HF_ENDPOINT and HF_HOME, as another process sees them."""
    environment = os.environ | {"HF_ENDPOINT": server.url, "HF_HOME": str(tmp_path / "home")}
    program = f"from seem.checkpoints import hub; print(hub.download({FILE!r}))"
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True)
    assert Path(done.stdout.strip()).is_relative_to(tmp_path / "home" / "hub")
