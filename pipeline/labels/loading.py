"""Models and tokenizers of transformers from a folder or the Hub; the labels' tokenizer, and its description in a data set.

The description is in the manifest and in every Parquet file: enough to check the labels and to make them again.
"""

import hashlib
import json
import lzma
import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from pipeline import resources
from pipeline.config.settings import LabelSettings
from pipeline.errors import ConfigError, CurationError, ModelUnavailable, StorageError
from pipeline.labels.tokenizer import LabelTokenizer
from pipeline.schema import digest
from pipeline.text import describe_error, one_line

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

WEIGHTS = (".safetensors", ".bin", ".pt", ".pth", ".gguf", ".onnx", ".h5", ".msgpack")
_HUB_TIMEOUT_S = 5.0
_HUB_ID = re.compile(r"\w[\w.-]*(/\w[\w.-]*)?")
_LIBRARIES = ("rapidfuzz", "tokenizers", "transformers", "jinja2")
_PARTS = {"tokenizer": "vocabulary, merges or rules", "template": "template", "special_tokens": "special tokens"}


def folder_digest(name: str, *, weights: bool) -> str | None:
    """sha256 over a folder's files, with or without weights; None for a Hub id. Raises ModelUnavailable."""
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


@contextmanager
def loading(setting: str, name: str) -> Iterator[dict[str, Any]]:
    """Yields arguments for `from_pretrained` of a folder or Hub id; when the Hub doesn't respond, its cache is used.

    Raises ConfigError, in one line, for whatever is raised inside: the libraries have no class for damaged files.
    """
    folder = Path(name).is_dir()
    if not folder and not _HUB_ID.fullmatch(name):
        raise ConfigError(f"{setting} {name}: no such folder; give one that holds the model's files, or a Hub id")
    trouble = None if folder else _hub_trouble(name)
    try:
        yield {"local_files_only": trouble is not None}
    except ConfigError:
        raise
    except Exception as error:
        if trouble:
            raise ConfigError(
                f"{setting} {name}: no such folder, and the Hub can't be asked for it ({trouble}); give a folder, or run "
                "again when the Hub answers"
            ) from None
        raise ConfigError(f"{setting} {name}: can't be loaded as a folder or Hub id: {one_line(error)}") from None


def _hub_trouble(model: str) -> str | None:
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


def open_tokenizer(name: str, settings: LabelSettings) -> LabelTokenizer:
    """The labels' tokenizer, from what a manifest or a setting names, probed before any model is called.

    Raises as `open_plain` and `LabelTokenizer`, and ConfigError, with the setting that helps, for a template that loses rows.
    """
    plain = open_plain(name)

    def opened(settings: LabelSettings) -> LabelTokenizer:
        tokenizer = LabelTokenizer(plain, settings, name)
        tokenizer.probe()
        return tokenizer

    try:
        return opened(settings)
    except ConfigError as error:
        for option in ("enable_thinking", "thinking"):
            options = settings.template_options | {option: False}
            try:
                opened(settings.model_copy(update={"template_options": options}))
            except ConfigError:
                continue
            raise ConfigError(f"{error}; what works here: labels.template_options={json.dumps(options)}") from None
        raise


def open_plain(name: str) -> "PreTrainedTokenizerFast":
    """The tokenizer as trainers load it, from a folder, a Hub id, or that of the embedded model `local/NAME`.

    That of the default policy ships with the program; another's is read from its GGUF file, which is fetched.
    Raises ConfigError when it can't be loaded or used, ModelUnavailable when the embedded model can't be fetched.
    """
    embedded = name.removeprefix("local/")
    if embedded == name or Path(name).is_dir():
        return _load(name)
    if is_shipped(embedded):
        return _shipped(embedded)
    from pipeline.labels.gguf import tokenizer_folder
    from pipeline.models.local import catalog
    from pipeline.models.local.download import fetch

    file = fetch(catalog.get(embedded))
    try:
        return _load(tokenizer_folder(file, file.with_suffix(".tokenizer")))
    except OSError as error:
        raise ModelUnavailable(
            f"{file.parent}: the model's tokenizer can't be written there ({error.strerror}); set FIGA_CACHE to "
            "another folder"
        ) from None


def is_shipped(model: str) -> bool:
    """Whether an embedded model's tokenizer is there without the model."""
    return _shipped_file(model).is_file()


def _shipped_file(model: str) -> Path:
    return resources.folder("data") / f"{model}.tokenizer.json.xz"


def _shipped(model: str) -> "PreTrainedTokenizerFast":
    """The tokenizer as `gguf.tokenizer_folder` writes it: one JSON object of both files' contents, by name."""
    _silence_advice()
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerFast

    files = json.loads(lzma.decompress(_shipped_file(model).read_bytes()))
    encoder = Tokenizer.from_str(json.dumps(files["tokenizer.json"]))
    return PreTrainedTokenizerFast(tokenizer_object=encoder, **files["tokenizer_config.json"])


def load_tokenizer(source: str | Path, settings: LabelSettings, name: str) -> LabelTokenizer:
    """The labels' tokenizer from a folder or the Hub. Raises ConfigError, in one line."""
    return LabelTokenizer(_load(source), settings, name)


def _load(source: str | Path) -> "PreTrainedTokenizerFast":
    """Load from a folder or the Hub, never running code that comes with it."""
    with loading("labels.tokenizer", str(source)) as options:
        return auto_tokenizer().from_pretrained(str(source), trust_remote_code=False, **options)


def auto_tokenizer() -> Any:
    """transformers' `AutoTokenizer`. After `leave_torch_out` it is imported as where torch isn't installed."""
    _silence_advice()
    hides = _torch_left_out and not {"torch", "transformers"} & sys.modules.keys()
    if hides:
        sys.modules["torch"] = None  # type: ignore[assignment]
    try:
        from transformers import AutoTokenizer
    finally:
        if hides:
            del sys.modules["torch"]
    return AutoTokenizer


def leave_torch_out() -> None:
    """For a program that only tokenises: torch, which transformers would import, takes 2 s and 180 MB. Such a process can't
    use transformers' models any more, so this is not for a library's caller."""
    global _torch_left_out  # noqa: PLW0603 - a fact about the process
    _torch_left_out = True


_torch_left_out = False


def _silence_advice() -> None:
    """What transformers says of a missing torch is not for those who only tokenise."""
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")


def describe(tokenizer: LabelTokenizer) -> dict[str, Any]:
    """The label settings, the tokenizer's name and fingerprint, the EOS, and the versions of the libraries."""
    return {
        **tokenizer.settings.data_settings(),
        "tokenizer": tokenizer.name,
        "fingerprint": tokenizer.fingerprint,
        "identity": tokenizer.identity,
        "eos_id": tokenizer.eos_id,
        "libraries": {name: version(name) for name in _LIBRARIES},
    }


def settings_of(labels: dict[str, Any]) -> LabelSettings:
    """The label settings in a description. Raises StorageError when it holds none."""
    try:
        return LabelSettings(**{name: labels[name] for name in LabelSettings.model_fields if name in labels})
    except (ValidationError, TypeError) as error:
        raise StorageError(
            f"the manifest's labels are no label settings ({one_line(error, 160)}); publish the data set again"
        ) from None


def difference(labels: dict[str, Any], tokenizer: LabelTokenizer) -> str | None:
    """How `tokenizer` differs from the one that a data set was labelled with, in words; None when it doesn't."""
    if labels.get("fingerprint") == tokenizer.fingerprint:
        return None
    recorded, current = labels.get("identity") or {}, tokenizer.identity
    parts = [words for name, words in _PARTS.items() if recorded.get(name) != current[name]]
    if parts:
        return f"its {', '.join(parts)} differ from the recorded ones"
    was = (labels.get("libraries") or {}).get("tokenizers")
    return f"the library tokenizers is {version('tokenizers')}, the labels were made with {was}"


def labels_tokenizer(manifest: dict[str, Any], name: str | None) -> tuple[LabelTokenizer | None, str]:
    """The tokenizer that made a data set's labels, or None and why it can't be loaded; with `name`, that one or an error."""
    labels = manifest["labels"]
    try:
        return open_tokenizer(name or str(labels["tokenizer"]), settings_of(labels)), ""
    except CurationError as error:
        if name:
            raise
        return None, f"pairs are compared word by word, without tokens and weights: {error}"
