"""Fine-grained preference data by the FIGA method: sample, score, select, revise, filter, label, publish.

Importing this package loads nothing heavy.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pipeline.dataset.open import open_dataset

__all__ = ["open_dataset"]
__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    if name == "open_dataset":
        from pipeline.dataset.open import open_dataset

        return open_dataset
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
