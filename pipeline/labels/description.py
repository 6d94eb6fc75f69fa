"""What a data set says of its labels, in its manifest and in every Parquet file: enough to check and to repeat them."""

from __future__ import annotations

from importlib.metadata import version
from typing import Any

from pydantic import ValidationError

from pipeline.config.settings import LabelSettings
from pipeline.errors import StorageError
from pipeline.labels.tokenizer import LabelTokenizer
from pipeline.text import one_line

_LIBRARIES = ("rapidfuzz", "tokenizers", "transformers", "jinja2")
_PARTS = {"tokenizer": "vocabulary, merges or rules", "template": "template", "special_tokens": "special tokens"}


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
    """The settings that a description was made from. Raises StorageError when it holds none."""
    try:
        return LabelSettings(**{name: labels[name] for name in LabelSettings.model_fields if name in labels})
    except (ValidationError, TypeError) as error:
        line = one_line(error, 160)
        raise StorageError(f"the manifest's labels are no label settings ({line}); publish the data set anew") from None


def difference(labels: dict[str, Any], tokenizer: LabelTokenizer) -> str | None:
    """In words, how `tokenizer` differs from the one that a data set was labelled with; None when it doesn't."""
    if labels.get("fingerprint") == tokenizer.fingerprint:
        return None
    recorded, found = labels.get("identity") or {}, tokenizer.identity
    parts = [words for name, words in _PARTS.items() if recorded.get(name) != found[name]]
    if parts:
        return f"its {', '.join(parts)} differ from the recorded ones"
    was = (labels.get("libraries") or {}).get("tokenizers")
    return f"the library tokenizers is {version('tokenizers')}, the labels were made with {was}"
