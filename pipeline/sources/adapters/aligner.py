"""Aligner: questions with an answer and its correction, by GPT-4, people and larger models.

Page: https://huggingface.co/datasets/aligner/aligner-20K   Licence: CC BY-NC 4.0
Paper: Ji et al., Aligner: Efficient Alignment by Learning to Correct, NeurIPS 2024, arXiv 2402.02416

    {"question": "Is the earth flat?", "answer": "Yes.", "correction": "No, it is round."}

gives the query `question`, the initial answer `answer`, and the revision `correction`, which is the reference too.
"""

from functools import partial

from pipeline.sources.fields import read
from pipeline.sources.row import Adapter

_READER = partial(read, fields={"prompt": "question", "initial": "answer", "revised": "correction"})
EXPECTED = '{"question": "…", "answer": "…", "correction": "…"}'
ADAPTER = Adapter("aligner", _READER, EXPECTED, hub_id="aligner/aligner-20K", licence="CC-BY-NC-4.0", gives_pairs=True)
