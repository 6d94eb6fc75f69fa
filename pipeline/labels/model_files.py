"""What a model's or tokenizer's folder holds: to be known before anything is loaded."""

from __future__ import annotations

import hashlib
from pathlib import Path

from pipeline.errors import ModelUnavailable
from pipeline.schema import digest

WEIGHTS = (".safetensors", ".bin", ".pt", ".pth", ".gguf", ".onnx", ".h5", ".msgpack")


def folder_digest(name: str, *, weights: bool) -> str | None:
    """sha256 over the files of the folder that `name` is, by their names; None when it is none, but a Hub id.

    weights: False leaves the weights out, which say nothing of a tokenizer and take a second a GB.
    Raises ModelUnavailable when a file can't be read.
    """
    folder = Path(name)
    if not folder.is_dir():
        return None
    found: dict[str, str] = {}
    for path in sorted(folder.iterdir()):
        if path.is_file() and (weights or path.suffix not in WEIGHTS):
            try:
                with path.open("rb") as file:
                    found[path.name] = hashlib.file_digest(file, "sha256").hexdigest()
            except OSError as error:
                raise ModelUnavailable(f"{path}: can't be read ({error.strerror})") from None
    return digest(found)
