"""SPA, the data set that FIGA's authors released: initial answers by Alpaca-7B with revisions by gpt-3.5.

Page: https://huggingface.co/datasets/RUCAIBox/SPA   Licence: unknown
Paper: Guo et al., Beyond Imitation, ICLR 2024, arXiv 2311.04072; code: https://github.com/RUCAIBox/FIGA

    {"instruction": "Name three fruits.", "output": "Apple, pear, plum.", "original_output": "Apple, pear.",
     "revised_output": "Apple, pear and plum."}

gives the query `instruction` (with `input`, where there is one, after a blank line), the reference `output`, the initial
answer `original_output` and its revision `revised_output`. Both answers exist, so rows enter at the filter stage: nothing is
sampled, scored, selected or revised. A row of this project's own `spa` export reads back the same.

Older copies have other names: `raw` for the reference and `output` for the initial answer (the first README), or
`alpaca_original_output` for the initial answer (the first trainer).
"""

from typing import Any

from pipeline.sources.fields import read
from pipeline.sources.row import Adapter, SourceRow

_FIELDS = {
    "prompt": "instruction",
    "input": "input",
    "reference": "output",
    "initial": "original_output",
    "revised": "revised_output",
}

_OLDER = {
    "alpaca_original_output": {"initial": "alpaca_original_output"},
    "raw": {"reference": "raw", "initial": "output"},
}


def parse(raw: dict[str, Any]) -> SourceRow:
    """The instruction with reference, initial answer and revision."""
    older = next((names for field, names in _OLDER.items() if field in raw and "original_output" not in raw), {})
    return read(raw, _FIELDS | older)


EXPECTED = '{"instruction": "…", "output": "…", "original_output": "…", "revised_output": "…"} (and perhaps "input")'
ADAPTER = Adapter("spa", parse, EXPECTED, hub_id="RUCAIBox/SPA", version=2, gives_pairs=True)
