"""The demo: finished pairs that ship with the program, so that a first run needs no model, no key and no network.

Queries and references are those of the bundled sample, and some in other languages; the initial answers are the embedded
policy's own, sampled by this pipeline and unedited; revisions, diagnoses and critiques were written by an AI assistant for this
project (data/README.md).

    {"sample_row": 86, "messages": […], "reference": "…", "initial": "…", "revised": "…", "diagnosis": "inaccuracy", …}

gives all of these. The pairs enter at the score stage: rewards are computed, and nobody is asked for an answer.
"""

from functools import partial

from pipeline.sources.fields import read
from pipeline.sources.row import Adapter

POLICY = "local/qwen2.5-coder-1.5b-instruct"
REVISER = "an AI assistant, for this project"
# The policy's when the answers were sampled, whatever its prompt is now.
SYSTEM = "You are a helpful and harmless assistant. Answer in two or three full sentences."
_PARTS = ("messages", "reference", "initial", "revised", "diagnosis", "critique")
EXPECTED = f"an object with {', '.join(_PARTS)}"
ADAPTER = Adapter(
    "demo",
    partial(read, fields={part: part for part in _PARTS}),
    EXPECTED,
    licence="Apache-2.0",
    bundled="demo.jsonl",
    gives_pairs=True,
    writers=(POLICY, REVISER),
    system=SYSTEM,
    scored=True,
    note=(
        "the initial answers are the embedded policy's own, sampled by this pipeline and unedited; revisions, diagnoses and "
        "critiques were written by an AI assistant for this project, and read once more by another"
    ),
)
