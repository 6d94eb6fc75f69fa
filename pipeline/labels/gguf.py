"""Write the tokenizer that a GGUF file carries as a folder that `transformers.AutoTokenizer` loads.

A GGUF file only names its split rules; the two that the catalog's models name are below, as their makers publish them. The
same GGUF gives the same bytes, whatever the library versions. No BOS is ever prepended; EOS is the token that ends a chat turn.
Known differences from llama.cpp: Qwen's tokenizer normalises text to NFC first, llama.cpp does not; and beside the few code
points for which SmolLM2 has no token, llama.cpp's bytes can differ.
"""

import json
import mmap
import os
import struct
from pathlib import Path
from typing import Any

from pipeline.errors import ModelUnavailable

_CHAT_EOS = "<|im_end|>"
_NORMAL, _CONTROL, _USER_DEFINED = 1, 3, 4  # kinds of tokens
_STRING, _ARRAY = 8, 9  # types of values; the others are numbers, here by their `struct` letters
_NUMBERS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}

_BYTE_LEVEL = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": False, "use_regex": False}
_BPE = dict.fromkeys(("dropout", "unk_token", "continuing_subword_prefix", "end_of_word_suffix")) | dict.fromkeys(
    ("fuse_unk", "byte_fallback", "ignore_merges"), False
)
_QWEN2_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_FAMILIES: dict[str, tuple[dict[str, Any] | None, list[dict[str, Any]]]] = {  # name: normaliser, splits
    "smollm": (None, [{"type": "Digits", "individual_digits": True}, {**_BYTE_LEVEL, "use_regex": True}]),
    "qwen2": (
        {"type": "NFC"},
        [{"type": "Split", "pattern": {"Regex": _QWEN2_SPLIT}, "behavior": "Isolated", "invert": False}, _BYTE_LEVEL],
    ),
}


def tokenizer_folder(gguf: Path, out: Path) -> Path:
    """Write `tokenizer.json` and `tokenizer_config.json` of the model in `gguf` into `out`; return `out`."""
    fields = _read(gguf)
    family = fields.get("tokenizer.ggml.pre")
    if fields.get("tokenizer.ggml.model") != "gpt2" or family not in _FAMILIES:
        raise ModelUnavailable(
            f"{gguf}: its tokenizer ({fields.get('tokenizer.ggml.model')}, split {family!r}) has no rules here; known: "
            f"{', '.join(sorted(_FAMILIES))}. Give a Hugging Face tokenizer instead: labels.tokenizer=ID_OR_FOLDER"
        )
    out.mkdir(parents=True, exist_ok=True)
    _write(out / "tokenizer.json", _tokenizer(fields, *_FAMILIES[family]))
    _write(out / "tokenizer_config.json", _config(fields))
    return out


def _tokenizer(fields: dict[str, Any], normalizer: dict[str, Any] | None, splits: list[Any]) -> dict[str, Any]:
    tokens, types = fields["tokenizer.ggml.tokens"], fields["tokenizer.ggml.token_type"]
    added = []
    vocabulary = {}
    for number, (token, kind) in enumerate(zip(tokens, types, strict=True)):
        if kind in (_CONTROL, _USER_DEFINED):
            flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
            added.append({"id": number, "content": token, **flags, "special": kind == _CONTROL})
        # The other kinds are padding up to the weights' width, which no text contains.
        if kind in (_NORMAL, _CONTROL, _USER_DEFINED):
            vocabulary[token] = number
    merges = [merge.split(" ") for merge in fields["tokenizer.ggml.merges"]]
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": added,
        "normalizer": normalizer,
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": splits},
        "post_processor": None,
        "decoder": _BYTE_LEVEL,
        "model": {"type": "BPE", **_BPE, "vocab": vocabulary, "merges": merges},
    }


def _config(fields: dict[str, Any]) -> dict[str, Any]:
    tokens = fields["tokenizer.ggml.tokens"]
    if _CHAT_EOS not in tokens:
        raise ModelUnavailable(f"the model's vocabulary has no {_CHAT_EOS}: it is not one of the supported chat models")
    special = {
        name: tokens[fields[f"tokenizer.ggml.{key}_token_id"]]
        for name, key in (("bos_token", "bos"), ("unk_token", "unknown"), ("pad_token", "padding"))
        if f"tokenizer.ggml.{key}_token_id" in fields
    }
    return {
        "add_bos_token": False,
        "add_eos_token": False,
        "add_prefix_space": False,
        **special,
        "eos_token": _CHAT_EOS,
        "chat_template": fields["tokenizer.chat_template"],
        "clean_up_tokenization_spaces": False,
        "model_max_length": fields[f"{fields['general.architecture']}.context_length"],
        "tokenizer_class": "PreTrainedTokenizerFast",
    }


def _read(gguf: Path) -> dict[str, Any]:
    """The metadata of a GGUF file (version 2 or 3) as plain Python values; the tensors are not read.

    Layout, little-endian: "GGUF", u32 version, u64 tensors, u64 pairs; then each pair as string key, u32 type, value.
    A string is u64 length and UTF-8 bytes; an array is u32 element type, u64 length, elements.
    """
    try:
        with gguf.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            magic, version, _, pairs = _unpack(data, "4sIQQ")
            if magic != b"GGUF" or version not in (2, 3):
                raise ModelUnavailable(f"{gguf} is not a GGUF file of version 2 or 3: it begins with {data[:8]!r}")
            fields = {}
            for _ in range(pairs):
                name = _value(data, _STRING)
                fields[name] = _value(data, *_unpack(data, "I"))
            return fields
    except (OSError, ValueError, KeyError, OverflowError, struct.error) as error:
        raise ModelUnavailable(f"{gguf} can't be read as GGUF: {error!r}") from error


def _value(data: mmap.mmap, kind: int) -> Any:
    """Read the next value, which is of type `kind`."""
    if kind == _STRING:
        (length,) = _unpack(data, "Q")
        text = data.read(length)
        if len(text) < length:
            raise ValueError("the file ends in the middle of a string")
        return text.decode("utf-8")
    if kind == _ARRAY:
        inner, length = _unpack(data, "IQ")
        return [_value(data, inner) for _ in range(length)]
    return _unpack(data, _NUMBERS[kind])[0]


def _unpack(data: mmap.mmap, layout: str) -> tuple[Any, ...]:
    return struct.unpack(f"<{layout}", data.read(struct.calcsize(f"<{layout}")))


def _write(path: Path, content: dict[str, Any]) -> None:
    """Whole or not at all, so that two processes that build the same folder do no harm to each other."""
    fresh = path.with_name(f"{path.name}.{os.getpid()}")
    fresh.write_text(json.dumps(content, ensure_ascii=False, indent=1) + "\n", encoding="utf-8", newline="\n")
    fresh.replace(path)
