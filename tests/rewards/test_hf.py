"""Sequence-classification rewards, on tiny randomly initialised models of three architectures made here."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from pipeline import rewards
from pipeline.config import RewardSettings
from pipeline.errors import ConfigError, ModelUnavailable
from tests.conftest import CHAT_TEMPLATE

torch = pytest.importorskip("torch", reason="hf/ rewards need torch: pip install 'figa-pipeline[train]'")

ITEMS = [
    ([{"role": "user", "content": "What is tea?"}], "A drink made from leaves."),
    (
        [
            {"role": "user", "content": "Hi"},
            {"role": "assistant", "content": "Hello."},
            {"role": "user", "content": "?"},
        ],
        "No.",
    ),
    ([{"role": "user", "content": "Why is the sky blue? " * 9}], "Air scatters short wavelengths of light. " * 12),
    ([{"role": "user", "content": "日本 é 🎉"}], "x"),
]


@pytest.fixture(params=["bert", "deberta-v2", "llama"])
def model(request: pytest.FixtureRequest, tmp_path: Path, tiny_tokenizer: Path) -> Path:
    """A folder with a tiny model and its tokenizer; only the decoder has a chat template."""
    import transformers

    tokenizer = transformers.AutoTokenizer.from_pretrained(str(tiny_tokenizer))
    tokenizer.chat_template = CHAT_TEMPLATE if request.param == "llama" else None
    tokenizer.save_pretrained(tmp_path)
    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
    config = transformers.AutoConfig.for_model(
        request.param, vocab_size=len(tokenizer), num_labels=1, pad_token_id=tokenizer.pad_token_id, **sizes
    )
    torch.manual_seed(0)
    transformers.AutoModelForSequenceClassification.from_config(config).save_pretrained(tmp_path)
    return tmp_path


def load(model: Path, batch_size: int) -> rewards.RewardModel:
    return rewards.load(RewardSettings(model=f"hf/{model}", max_length=256, batch_size=batch_size))


def test_scores_are_the_same_alone_and_in_batches(model: Path) -> None:
    alone, together = load(model, 1).score(ITEMS), load(model, 4).score(ITEMS)
    assert alone.dtype == np.float32 and alone.shape == (4,)
    np.testing.assert_allclose(alone, together, atol=1e-5)
    assert len(set(alone.tolist())) == 4
    np.testing.assert_allclose(load(model, 2).score(ITEMS[::-1]), alone[::-1], atol=1e-5)


def test_scores_are_those_of_transformers_itself(model: Path) -> None:
    import transformers

    tokenizer = transformers.AutoTokenizer.from_pretrained(str(model))
    direct = transformers.AutoModelForSequenceClassification.from_pretrained(str(model)).eval()
    messages, answer = ITEMS[0]
    if tokenizer.chat_template:
        text = tokenizer.apply_chat_template([*messages, {"role": "assistant", "content": answer}], tokenize=False)
        inputs = tokenizer(text, add_special_tokens=False, return_tensors="pt")
    else:
        inputs = tokenizer(messages[0]["content"], answer, return_tensors="pt")
    with torch.inference_mode():
        expected = direct(**inputs).logits[0, 0].item()
    assert load(model, 4).score(ITEMS[:1])[0] == pytest.approx(expected, abs=1e-5)


def test_other_weights_in_the_same_folder_are_another_model(model: Path) -> None:
    import transformers

    settings = RewardSettings(model=f"hf/{model}")
    before = load(model, 1).digest, rewards.identity(settings)
    assert before == (load(model, 2).digest, rewards.identity(settings))
    changed = transformers.AutoModelForSequenceClassification.from_pretrained(str(model))
    with torch.no_grad():
        next(changed.parameters()).add_(1.0)
    changed.save_pretrained(model)
    after = load(model, 1).digest, rewards.identity(settings)
    assert before[0] != after[0] and before[1] != after[1]


def test_a_missing_model_is_one_line() -> None:
    with pytest.raises(ModelUnavailable, match="no/such-model") as error:
        rewards.load(RewardSettings(model="hf/no/such-model"))
    assert "\n" not in str(error.value)


def test_a_chat_provider_is_no_reward() -> None:
    with pytest.raises(ConfigError, match=r"reward\.model"):
        rewards.load(RewardSettings(model="openai/gpt-4o"))
