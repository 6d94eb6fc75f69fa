"""HelpSteer3, edits: answers by some twenty open models, mended by people after the feedback of other people.

Page: https://huggingface.co/datasets/nvidia/HelpSteer3 (configuration `edit`)   Licence: CC BY 4.0
Paper: Wang et al., HelpSteer3: Human-Annotated Feedback and Edit Data, 2025, arXiv 2503.04378

    {"domain": "general", "language": "english", "context": [{"role": "user", "content": "Who made it?"}],
     "original_response": "I can't know.", "edited_response": "Ada made it.", "feedback": ["It does not answer.", …]}

gives the query `context`, the initial answer, its revision, which is the reference too, and the feedback, a line each, as the
critique. `source.keep=domain,language` keeps the rest.
"""

from functools import partial

from pipeline.sources.fields import read
from pipeline.sources.row import Adapter

_FIELDS = {"messages": "context", "reference": "edited_response", "initial": "original_response"}
_FIELDS |= {"revised": "edited_response", "critique": "feedback"}
EXPECTED = '{"context": […], "original_response": "…", "edited_response": "…", "feedback": ["…"]}'
ADAPTER = Adapter(
    "helpsteer3-edit",
    partial(read, fields=_FIELDS),
    EXPECTED,
    hub_id="nvidia/HelpSteer3",
    hub_config="edit",
    licence="CC-BY-4.0",
    gives_pairs=True,
)
