"""A model small enough for a CPU, in the vocabulary of the tokens that a data set uses."""

from typing import Any

from transformers import LlamaConfig, LlamaForCausalLM

Row = dict[str, Any]
COLUMNS = [f"{side}_{kind}" for side in ("revised", "initial") for kind in ("input_ids", "labels", "weights")]


def tiny_model(rows: list[Row], eos: int) -> tuple[LlamaForCausalLM, list[Row], int]:
    """A Llama of two layers with random weights, and the rows and the EOS in a vocabulary of the tokens that they use.

    150,000 embeddings for the 2,000 tokens of the demo would make it slow. A real model keeps its vocabulary.
    """
    used = {eos}.union(*(row[f"{side}_input_ids"] for row in rows for side in ("revised", "initial")))
    new = {-100: -100} | {token: number for number, token in enumerate(sorted(used))}
    ids = [name for name in COLUMNS if not name.endswith("weights")]
    rows = [row | {name: [new[token] for token in row[name]] for name in ids} for row in rows]
    sizes = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 2}
    return LlamaForCausalLM(LlamaConfig(vocab_size=len(used), **sizes)), rows, new[eos]
