"""What the checks share: their type, optional libraries, and text as words and n-grams of words."""

import importlib
import re
import unicodedata
from collections.abc import Callable
from types import ModuleType

from pipeline.errors import ConfigError
from pipeline.sources import SourceRow

# Called with each row in reading order; raises RowReject when the row must not go on.
Check = Callable[[SourceRow], None]

# Thai, Lao, Burmese, Khmer, kana and Han are written without spaces: each character counts as a word.
_UNSPACED = "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
_WORD = re.compile(rf"[{_UNSPACED}]|[^\W{_UNSPACED}]+")


def optional(module: str, setting: str) -> ModuleType:
    """A library of the extra `curation`; a ConfigError says how to get it."""
    try:
        return importlib.import_module(module)
    except ImportError:
        package = module.partition(".")[0]
        raise ConfigError(f"{setting} needs the package {package}: pip install -e '.[curation]'") from None


def words(text: str) -> list[str]:
    """Words without case, punctuation or compatibility forms: `"The  Café, 東京!"` gives `["the", "café", "東", "京"]`."""
    return _WORD.findall(unicodedata.normalize("NFKC", text).lower())


def ngrams(words: list[str], n: int) -> list[str]:
    """Every run of n words, joined by spaces; the whole text when it is shorter. Repeats are kept."""
    return [" ".join(words[start : start + n]) for start in range(max(1, len(words) - n + 1))]
