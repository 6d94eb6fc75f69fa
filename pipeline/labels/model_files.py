"""Facts about a model or tokenizer before it is loaded: what its folder holds, whether the Hub responds."""

import hashlib
from pathlib import Path

from pipeline.errors import ModelUnavailable
from pipeline.schema import digest
from pipeline.text import describe_error

WEIGHTS = (".safetensors", ".bin", ".pt", ".pth", ".gguf", ".onnx", ".h5", ".msgpack")
_HUB_TIMEOUT_S = 5.0


def folder_digest(name: str, *, weights: bool) -> str | None:
    """sha256 over the names and content of a folder's files; None when `name` is no folder, but a Hub id.

    weights: False leaves the weights out, which say nothing of a tokenizer and take a second per GB.
    Raises ModelUnavailable when a file can't be read.
    """
    folder = Path(name)
    if not folder.is_dir():
        return None
    hashes: dict[str, str] = {}
    for path in sorted(folder.iterdir()):
        if path.is_file() and (weights or path.suffix not in WEIGHTS):
            try:
                with path.open("rb") as file:
                    hashes[path.name] = hashlib.file_digest(file, "sha256").hexdigest()
            except OSError as error:
                raise ModelUnavailable(f"{path}: can't be read ({error.strerror})") from None
    return digest(hashes)


def hub_trouble(model: str) -> str | None:
    """Why the Hub does not respond for a model, or None: one small request, where the library would try for a minute."""
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError

    try:
        HfApi().model_info(model, timeout=_HUB_TIMEOUT_S)
    except HfHubHTTPError:
        return None  # a response, which loading explains
    except Exception as error:  # the HTTP library's own errors; which library that is differs between versions
        return describe_error(error, 100)
    return None
