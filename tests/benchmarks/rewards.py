"""Scoring by a sequence classifier in batches against one by one, and by a reward server in batches against one a request.

Random models on the CPU; answers of the bundled sample, and of 3 to 400 words (log-uniform), a few of which are most of the
work. One by one is transformers itself in a bare loop: encode, forward, read the logit, no padding. The small model stands for
what fewer calls save; on the larger one both are bound by arithmetic, and what is left is that each core has batches of its
own. The limit is one by one against the matrix products and the attention of the same batches alone, as quick as this machine
does them. A GPU saves more on either.
"""

from __future__ import annotations

import json
import random
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from pipeline import rewards
from pipeline.config.settings import RewardSettings
from pipeline.sources.adapters import hh_rlhf
from tests.benchmarks import _pairs
from tests.benchmarks.measure import Figure, ratios, repeated, seconds
from tests.conftest import SAMPLE
from tests.loopback import LoopbackServer
from tests.loopback.rewards import RewardDesk

_ITEMS, _QUICK, _REPEATS = 128, 24, 5
# Hidden size, layers, heads; repeats: the small ones take a fifth of a second, and scatter. Heads of 8 are narrower than a real
# model's, and slow whatever the batch; those of 32 are MiniLM's, and the last model is of its size.
_MODELS = {
    "hidden 64, 2 layers, heads of 8": ((64, 2, 8), 3 * _REPEATS),
    "hidden 64, 2 layers, heads of 32": ((64, 2, 2), 3 * _REPEATS),
    "hidden 384, 6 layers, heads of 32": ((384, 6, 12), _REPEATS),
}


def run(*, quick: bool) -> list[Figure]:
    count = _QUICK if quick else _ITEMS
    kinds = {"the sample": list(_of_sample(count)), "3 to 400 words": list(_long_and_short(count))}
    figures = []
    for name, (sizes, repeats) in list(_MODELS.items())[: 1 if quick else None]:
        for kind, items in kinds.items():
            with tempfile.TemporaryDirectory() as folder:
                figures += _classifier(Path(folder), f"{name}, {kind}", sizes, items, 1 if quick else repeats)
    return figures + _server(kinds["the sample"], 1 if quick else _REPEATS)


def _of_sample(count: int) -> Any:
    """Both answers of rows of the bundled sample, in the order in which selection scores them."""
    for line in SAMPLE.read_text("utf-8").splitlines()[: count // 2]:
        row = hh_rlhf.parse(json.loads(line))
        yield row.messages, row.reference
        yield row.messages, row.rejected


def _long_and_short(count: int) -> Any:
    chance = random.Random(0)
    words = SAMPLE.read_text("utf-8").replace("\\n", " ").split()
    for _ in range(count):
        length = round(3 * (400 / 3) ** chance.random())
        start = chance.randrange(len(words) - length)
        yield (
            [{"role": "user", "content": " ".join(words[start : start + 12])}],
            " ".join(words[start : start + length]),
        )


def _classifier(folder: Path, name: str, sizes: tuple[int, int, int], items: list[Any], repeats: int) -> list[Figure]:
    try:
        import torch
        from transformers import AutoConfig, AutoModelForSequenceClassification
    except ImportError:
        return [Figure(f"batches / one by one, {name}", None, "×", target="skipped: needs torch")]
    tokenizer = _pairs.tokenizer()._tokenizer
    tokenizer.save_pretrained(folder)
    hidden, layers, heads = sizes
    config = AutoConfig.for_model(
        "llama",
        vocab_size=len(tokenizer),
        hidden_size=hidden,
        intermediate_size=4 * hidden,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_labels=1,
        max_position_embeddings=2048,
    )
    torch.manual_seed(0)
    model = AutoModelForSequenceClassification.from_config(config).eval()
    model.save_pretrained(folder)
    reward: Any = rewards.load_reward(RewardSettings(model=f"hf/{folder}", max_length=2048), _nobody)
    alone: list[float] = []

    def one_by_one() -> None:
        alone.clear()
        with torch.inference_mode():
            for messages, answer in items:
                whole = [*messages, {"role": "assistant", "content": answer}]
                text = tokenizer.apply_chat_template(whole, tokenize=False)
                alone.append(
                    model(**tokenizer(text, add_special_tokens=False, return_tensors="pt")).logits[0, 0].item()
                )

    one_by_one()
    together = reward.score(items)
    lengths = [len(each["input_ids"]) for each in reward._encode(items)]
    pairs = ratios(lambda: seconds(one_by_one), lambda: seconds(lambda: reward.score(items)), repeats)
    limits = [slow / _arithmetic(reward, lengths) for slow, _ in pairs]
    return [
        repeated(f"batches / one by one, {name}", "×", [slow / quick for slow, quick in pairs], target="at least 2.5"),
        repeated(f"the limit of it, {name}", "×", limits),
        repeated(f"answers in batches, {name}", "answers/s", [len(items) / quick for _, quick in pairs]),
        Figure(
            f"largest difference of a score, {name}", float(np.abs(together - alone).max()), "", target="at most 1e-5"
        ),
    ]


def _arithmetic(reward: Any, lengths: list[int]) -> float:
    """Seconds of the model's matrix products and attention alone, in the reward's batches, on all cores as these are."""
    import torch
    from torch.nn.functional import scaled_dot_product_attention as attention

    config = reward._model.config
    layers = [module for module in reward._model.modules() if isinstance(module, torch.nn.Linear)]
    batches = list(reward._batches(lengths, padded=True))
    shapes = [(len(chosen), max(lengths[i] for i in chosen)) for chosen in batches]
    most = max(rows * length for rows, length in shapes)
    inputs = [torch.rand(most, layer.in_features) for layer in layers]

    def arithmetic(shape: tuple[int, int]) -> None:
        rows, length = shape
        heads = inputs[0][: rows * length].view(rows, length, config.num_attention_heads, -1).transpose(1, 2)
        with torch.inference_mode():
            for layer, values in zip(layers, inputs, strict=True):
                layer(values[: rows * length])
            for _ in range(config.num_hidden_layers):
                attention(heads, heads, heads, is_causal=True)

    return seconds(lambda: reward._map(arithmetic, shapes))


def _server(items: list[Any], repeats: int) -> list[Figure]:
    """A loopback server that takes 20 ms a request: batches of 16 against one answer a request, either 4 requests at a time."""
    desk = RewardDesk(len, delay=0.02)
    with LoopbackServer(key=None, extensions=[desk.extend]) as server:

        def score(size: int) -> None:
            settings = RewardSettings(model=f"openrlhf/rm@{server.url}", batch_size=size, concurrency=4)
            rewards.load_reward(settings, _nobody).score(items, [])

        pairs = ratios(lambda: seconds(lambda: score(1)), lambda: seconds(lambda: score(16)), repeats)
    return [
        repeated("a server of 20 ms a request: batches / one a request", "×", [slow / quick for slow, quick in pairs])
    ]


def _nobody(settings: RewardSettings) -> Any:
    raise AssertionError(f"no judge is asked, and {settings.model} was")
