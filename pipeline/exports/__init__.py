"""The published pairs in the formats of other trainers.

Each format is a pure function from pairs to rows, with the contract of the loss that its columns are for; `writing` reads,
streams and writes, and knows no format.
"""

from __future__ import annotations

from pipeline.errors import UsageError
from pipeline.exports import dpo, llamafactory, sequences, sft, spa
from pipeline.exports.format import Format

FORMATS = {
    format.name: format for format in (spa.FORMAT, dpo.FORMAT, sft.FORMAT, sequences.FORMAT, llamafactory.FORMAT)
}


def get(name: str, variant: str | None = None) -> tuple[Format, str]:
    """The format and its variant, None meaning the format's first. Raises UsageError that lists what there is."""
    if name not in FORMATS:
        raise UsageError(f"--format {name}: unknown; there are {', '.join(FORMATS)}")
    variants = FORMATS[name].variants
    if variant is None:
        return FORMATS[name], next(iter(variants))
    if variant not in variants:
        raise UsageError(f"--variant {variant}: format {name} has {', '.join(variants)}")
    return FORMATS[name], variant
