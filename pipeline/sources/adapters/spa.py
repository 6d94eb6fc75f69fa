"""SPA, the data set that FIGA's authors released: initial answers by Alpaca-7B with revisions by gpt-3.5.

Page: https://huggingface.co/datasets/RUCAIBox/SPA   Licence: unknown
Paper: Guo et al., Beyond Imitation, ICLR 2024, arXiv 2311.04072; code: https://github.com/RUCAIBox/FIGA

    {"instruction": "Name three fruits.", "output": "Apple, pear, plum.", "original_output": "Apple, pear.",
     "revised_output": "Apple, pear and plum."}

gives the query `instruction` (with `input`, where there is one, after a blank line), the reference `output`, the initial
answer `original_output` and its revision `revised_output`. Both answers exist, so rows enter at the filter stage: nothing is
sampled, scored, selected or revised. A row of this project's own `spa` export reads back the same.
"""

from functools import partial

from pipeline.sources.fields import read
from pipeline.sources.row import Adapter

_FIELDS = {
    "prompt": "instruction",
    "input": "input",
    "reference": "output",
    "initial": "original_output",
    "revised": "revised_output",
}

EXPECTED = '{"instruction": "…", "output": "…", "original_output": "…", "revised_output": "…"} (and perhaps "input")'
ADAPTER = Adapter("spa", partial(read, fields=_FIELDS), EXPECTED, hub_id="RUCAIBox/SPA", gives_pairs=True)
