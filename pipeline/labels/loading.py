"""Where the labels' tokenizer comes from: a folder, the Hub, or the file of an embedded model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pipeline.config.settings import LabelSettings
from pipeline.errors import CurationError, ModelUnavailable
from pipeline.labels.description import settings_of
from pipeline.labels.tokenizer import LabelTokenizer, load_tokenizer


def open_tokenizer(name: str, settings: LabelSettings) -> LabelTokenizer:
    """The tokenizer that a manifest or a setting names. `local/NAME` is that embedded model's, unless a folder is called so.

    settings.system is used as it stands. Raises ConfigError when it can't be loaded or used, ModelUnavailable when the
    embedded model can't be fetched.
    """
    embedded = name.removeprefix("local/")
    if embedded == name or Path(name).is_dir():
        return load_tokenizer(name, settings, name)
    from pipeline.labels.gguf import tokenizer_folder
    from pipeline.models.local import catalog
    from pipeline.models.local.download import fetch

    file = fetch(catalog.get(embedded))
    try:
        folder = tokenizer_folder(file, file.with_suffix(".tokenizer"))
    except OSError as error:
        raise ModelUnavailable(
            f"{file.parent}: the model's tokenizer can't be written there ({error.strerror}); set FIGA_CACHE to "
            "another folder"
        ) from None
    return load_tokenizer(folder, settings, name)


def labels_tokenizer(manifest: dict[str, Any], name: str | None) -> tuple[LabelTokenizer | None, str]:
    """The tokenizer that a data set's labels were made with, or `name` in its place; None, and why in words, where it can't
    be had."""
    labels = manifest["labels"]
    try:
        return open_tokenizer(name or str(labels["tokenizer"]), settings_of(labels)), ""
    except CurationError as error:
        if name:
            raise
        return None, f"pairs are compared word by word, without tokens and weights: {error}"
