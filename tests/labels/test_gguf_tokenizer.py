"""The tokenizer built from a GGUF file gives the ids that llama.cpp gives for the same file."""

from __future__ import annotations

import hashlib
import http.client
import json
import random
import struct
import sys
import unicodedata
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from pipeline.config.settings import LabelSettings
from pipeline.errors import ModelUnavailable
from pipeline.labels.gguf import tokenizer_folder
from pipeline.labels.loading import load_tokenizer, open_tokenizer
from pipeline.models.local.catalog import CATALOG
from pipeline.models.local.download import cache_folder, fetch
from pipeline.models.local.server import LocalServer

SAMPLE = Path(__file__).resolve().parents[2] / "data" / "hh-rlhf-sample.jsonl"
BLOCKS = [(32, 127)] * 6 + [
    *[(0, 32), (0xA0, 0x250), (0x300, 0x370), (0x370, 0x530), (0x590, 0x700), (0x900, 0xE00), (0x1100, 0x1200)],
    *[(0x2000, 0x2070), (0x2150, 0x2190), (0x2460, 0x2500), (0x2F00, 0x3100), (0x4E00, 0x9FFF), (0xAC00, 0xD7A4)],
    *[(0xFB00, 0xFE10), (0xFF00, 0xFFF0), (0x1D400, 0x1D800), (0x1F300, 0x1FA00), (0x20000, 0x2A6E0)],
]
PHRASES = [
    "don't",
    "I'LL",
    "we've",
    "   ",
    "\n\n",
    "\r\n",
    "\t",
    " 1234567",
    "3.14",
    "²½Ⅷ",
    "’s",
    "\u200b",
    "\u2028",
    "\xa0",
]
PHRASES += ["<|im_start|>", "<|im_end|>", "<|endoftext|>", "<tool_call>", " naïve", "cafe\u0301", "한국어", "a" * 40]
NO_TOKEN = dict.fromkeys(b"\x04\x06\x13\x14\x16\x1d")  # SmolLM2 drops these, and so does llama.cpp
TALKS = [
    [{"role": "user", "content": "hi"}],
    [
        {"role": "system", "content": "S\n x "},
        {"role": "user", "content": " hi <|im_end|> \n"},
        {"role": "assistant", "content": "é\n\n"},
        {"role": "user", "content": "z"},
    ],
]

Post = Callable[[str, dict[str, Any]], Any]


def random_texts(count: int) -> list[str]:
    chance = random.Random(11)

    def piece() -> str:
        if chance.random() < 0.4:
            return chance.choice(PHRASES)
        low, high = chance.choice(BLOCKS)
        return "".join(chr(chance.randrange(low, high)) for _ in range(chance.randint(1, 6)))

    return [chance.choice(("", " ")).join(piece() for _ in range(chance.randint(1, 12))) for _ in range(count)]


def real_texts() -> list[str]:
    rows = [json.loads(line) for line in SAMPLE.read_text(encoding="utf-8").splitlines()[:100]]
    return [row[side] for row in rows for side in ("chosen", "rejected")]


@pytest.fixture(scope="module", params=["smollm2-135m-instruct", "qwen2.5-coder-0.5b-instruct"])
def gguf(request: pytest.FixtureRequest) -> Path:
    model = CATALOG[request.param]
    if model.name.startswith("smollm2"):
        return Path(request.getfixturevalue("smollm2"))
    if not (cache_folder() / model.filename).exists():
        pytest.skip(f"{model.name} is not in the cache, and half a gigabyte is too much to download for a test")
    return fetch(model)


@pytest.fixture(scope="module")
def tokenizer(gguf: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(tokenizer_folder(gguf, tmp_path_factory.mktemp("tokenizer")))


@pytest.fixture(scope="module")
def post(gguf: Path) -> Iterator[Post]:
    server = LocalServer(gguf, context=512)
    link = http.client.HTTPConnection(
        *server.base_url.removeprefix("http://").removesuffix("/v1").split(":"), timeout=60
    )

    def ask(path: str, body: dict[str, Any]) -> Any:
        link.request("POST", path, json.dumps(body), {"Authorization": f"Bearer {server.api_key}"})
        return json.loads(link.getresponse().read())

    yield ask
    link.close()
    server.close()


@pytest.mark.parametrize("texts", [random_texts(200), real_texts()], ids=["random Unicode", "hh-rlhf"])
def test_the_ids_are_llama_cpps(tokenizer: Any, post: Post, texts: list[str]) -> None:
    normalises = tokenizer.backend_tokenizer.normalizer is not None
    for text in texts:
        # The one known difference: Qwen's own tokenizer normalises to NFC, llama.cpp's copy of it doesn't.
        theirs = unicodedata.normalize("NFC", text) if normalises else text
        question = {"content": theirs, "add_special": False, "parse_special": True}
        expected = post("/tokenize", question)["tokens"]
        assert tokenizer.encode(text) == expected, ascii(text)
        kept = theirs if normalises else theirs.translate(NO_TOKEN)
        assert tokenizer.decode(expected, skip_special_tokens=False) == kept


@pytest.mark.parametrize("talk", TALKS, ids=["short", "with a system turn"])
def test_the_rendered_chat_is_llama_cpps(tokenizer: Any, post: Post, talk: list[dict[str, str]]) -> None:
    rendered = tokenizer.apply_chat_template(talk, tokenize=False, add_generation_prompt=True)
    assert rendered == post("/apply-template", {"messages": talk})["prompt"]


def test_special_tokens(tokenizer: Any) -> None:
    assert tokenizer.eos_token == "<|im_end|>"
    assert tokenizer.encode("<|im_end|>") == [tokenizer.eos_token_id]
    assert tokenizer.encode("x")[0] == tokenizer.convert_tokens_to_ids("x")  # no BOS
    assert tokenizer.pad_token_id is not None


def test_the_same_file_gives_the_same_bytes(smollm2: Path, tmp_path: Path) -> None:
    first, second = tokenizer_folder(smollm2, tmp_path / "a"), tokenizer_folder(smollm2, tmp_path / "b")
    assert sorted(path.name for path in first.iterdir()) == ["tokenizer.json", "tokenizer_config.json"]
    for path in first.iterdir():
        assert path.read_bytes() == (second / path.name).read_bytes()
    # Labels depend on these bytes: a change here is a new tokenizer for everybody who resumes a run.
    digests = {path.name: hashlib.sha256(path.read_bytes()).hexdigest()[:16] for path in first.iterdir()}
    assert digests == {"tokenizer.json": "e2084864056289bc", "tokenizer_config.json": "4414f1cfe3ff7c4f"}


def _string(text: str) -> bytes:
    return struct.pack("<Q", len(text)) + text.encode()


def gguf_bytes(**fields: str) -> bytes:
    pairs = b"".join(_string(name.replace("_", ".")) + struct.pack("<I", 8) + _string(v) for name, v in fields.items())
    return struct.pack("<4sIQQ", b"GGUF", 3, 0, len(fields)) + pairs


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (gguf_bytes(tokenizer_ggml_model="llama"), "labels.tokenizer="),
        (gguf_bytes(tokenizer_ggml_model="gpt2", tokenizer_ggml_pre="unheard"), r"unheard.*known: qwen2, smollm"),
        (gguf_bytes(tokenizer_ggml_model="gpt2")[:-2], "can't be read"),
        (b"hello, this is not a model at all", "not a GGUF file"),
        (b"", "can't be read"),
    ],
    ids=["another kind", "another split", "cut off", "text", "empty"],
)
def test_files_it_cannot_use_are_refused(tmp_path: Path, content: bytes, reason: str) -> None:
    (tmp_path / "x.gguf").write_bytes(content)
    with pytest.raises(ModelUnavailable, match=reason) as caught:
        tokenizer_folder(tmp_path / "x.gguf", tmp_path / "out")
    assert "\n" not in str(caught.value)


def test_it_needs_neither_torch_nor_gguf(smollm2: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for absent in ("torch", "gguf", "tokenizers", "transformers"):
        monkeypatch.setitem(sys.modules, absent, None)
    assert tokenizer_folder(smollm2, tmp_path / "out").is_dir()


def test_the_shipped_tokenizer_is_the_models_own(tmp_path: Path) -> None:
    model = CATALOG["qwen2.5-coder-1.5b-instruct"]
    if not (cache_folder() / model.filename).exists():
        pytest.skip(f"{model.name} is not in the cache, and a gigabyte is too much to download for a test")
    shipped = open_tokenizer(f"local/{model.name}", LabelSettings())
    own = load_tokenizer(tokenizer_folder(fetch(model), tmp_path / "own"), LabelSettings(), model.name)
    assert (shipped.fingerprint, shipped.eos_id) == (own.fingerprint, own.eos_id)
