"""Where the labels' tokenizer comes from: a folder, the Hub, or the file of an embedded model."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

from pipeline.config.settings import LabelSettings
from pipeline.errors import ConfigError, CurationError, ModelUnavailable
from pipeline.labels.description import settings_of
from pipeline.labels.model_files import hub_trouble
from pipeline.labels.tokenizer import LabelTokenizer

_HUB_ID = re.compile(r"\w[\w.-]*(/\w[\w.-]*)?")


def open_tokenizer(name: str, settings: LabelSettings) -> LabelTokenizer:
    """The tokenizer that a manifest or a setting names: a folder, a Hub id, or that of the embedded model `local/NAME`.

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


def load_tokenizer(source: str | Path, settings: LabelSettings, name: str) -> LabelTokenizer:
    """Load from a folder or the Hub, never running code that comes with it. Raises ConfigError, in one line.

    When the Hub does not respond, the tokenizer is loaded from its cache.
    """
    # Its advice to install torch is not for those who only tokenise.
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    from transformers import AutoTokenizer

    source = str(source)
    folder = Path(source).is_dir()
    if not folder and not _HUB_ID.fullmatch(source):
        raise ConfigError(
            f"labels.tokenizer {source}: no such folder; give one that holds a tokenizer.json, or a Hub id"
        )
    trouble = None if folder else hub_trouble(source)
    try:
        tokenizer = AutoTokenizer.from_pretrained(source, trust_remote_code=False, local_files_only=trouble is not None)
    except Exception as error:  # `tokenizers` raises no class of its own for a damaged file
        if trouble:
            raise ConfigError(
                f"labels.tokenizer {source}: no such folder, and the Hub can't be asked for it ({trouble}); give a folder that "
                "holds a tokenizer.json, or run again when the Hub answers"
            ) from None
        reason = " ".join(str(error).split())[:200]
        raise ConfigError(f"labels.tokenizer {source}: can't be loaded as a folder or Hub id: {reason}") from None
    return LabelTokenizer(tokenizer, settings, name)


def labels_tokenizer(manifest: dict[str, Any], name: str | None) -> tuple[LabelTokenizer | None, str]:
    """The tokenizer that made a data set's labels, or the one called `name`; None, and the reason, when it can't be loaded.

    Raises CurationError when the one called `name` can't be loaded.
    """
    labels = manifest["labels"]
    try:
        return open_tokenizer(name or str(labels["tokenizer"]), settings_of(labels)), ""
    except CurationError as error:
        if name:
            raise
        return None, f"pairs are compared word by word, without tokens and weights: {error}"
