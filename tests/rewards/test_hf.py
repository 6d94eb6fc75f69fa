"""Sequence-classification rewards, on tiny randomly initialised models of three architectures made here."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline import rewards
from pipeline.config.settings import RewardSettings
from pipeline.errors import ConfigError
from tests.conftest import CHAT_TEMPLATE
from tests.rewards.scoring import no_chat

torch = pytest.importorskip("torch", reason="hf/ rewards need torch: pip install -e '.[train]'")

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


@pytest.fixture(params=["bert", "deberta-v2", "llama", "gpt2"])
def model(request: pytest.FixtureRequest, tmp_path: Path, tiny_tokenizer: Path) -> Path:
    """A folder with a tiny model and its tokenizer; only the decoders have a chat template. gpt2 knows no padding."""
    return make_model(tmp_path, tiny_tokenizer, request.param)


def make_model(folder: Path, tokenizer_folder: Path, kind: str, **more: object) -> Path:
    import transformers

    tokenizer = transformers.AutoTokenizer.from_pretrained(str(tokenizer_folder))
    decoder = kind in ("llama", "gpt2")
    tokenizer.chat_template = CHAT_TEMPLATE if decoder else None
    settings: dict[str, object] = {"pad_token_id": None if decoder else tokenizer.pad_token_id, "num_labels": 1}
    settings |= {"n_embd": 32, "n_layer": 2, "n_head": 4} if kind == "gpt2" else dict(SIZES)
    config = transformers.AutoConfig.for_model(kind, vocab_size=len(tokenizer), **settings | more)
    if kind == "gpt2":
        tokenizer.pad_token = None
    tokenizer.save_pretrained(folder)
    torch.manual_seed(0)
    transformers.AutoModelForSequenceClassification.from_config(config).save_pretrained(folder)
    return folder


SIZES = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}


def load_reward(settings: RewardSettings) -> Any:
    return rewards.load_reward(settings, open_chat=no_chat)


def load(model: Path, batch_size: int) -> Any:
    return load_reward(RewardSettings(model=f"hf/{model}", max_length=512, batch_size=batch_size))


def test_scores_are_the_same_alone_and_in_batches(model: Path) -> None:
    alone, together = load(model, 1).score(ITEMS), load(model, 4).score(ITEMS)
    assert alone.dtype == np.float32 and alone.shape == (4,)
    np.testing.assert_allclose(alone, together, atol=1e-5)
    assert len(set(alone.tolist())) == 4
    np.testing.assert_allclose(load(model, 2).score(ITEMS[::-1]), alone[::-1], atol=1e-5)


def test_batches_on_cores_of_their_own_score_the_same(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Four batches, two at the same time; the threads torch had are its own again afterwards."""
    alone = load(model, 4).score(ITEMS)
    reward, both = load(model, 1), threading.Barrier(2, timeout=60)
    scored = reward._score_batch
    monkeypatch.setattr(reward, "_score_batch", lambda *batch: (both.wait(), scored(*batch))[1])
    threads, begun = torch.get_num_threads(), []
    monkeypatch.setattr(
        torch, "set_num_threads", lambda n, set_threads=torch.set_num_threads: begun.append(n) or set_threads(n)
    )
    torch.set_num_threads(2)
    try:
        shared = reward.score(ITEMS)
        assert begun == [2, 1, 1, 2] and torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(threads)
    np.testing.assert_allclose(shared, alone, atol=1e-5)


def test_only_models_that_look_back_do_without_a_mask(model: Path) -> None:
    (given, *_) = load(model, 4)._encode(ITEMS)
    reads_last = json.loads((model / "config.json").read_text())["model_type"] == "llama"
    assert ("attention_mask" not in given) == reads_last


def test_texts_that_use_every_token_are_scored_without_padding(
    tmp_path: Path, tiny_tokenizer: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reward = load(make_model(tmp_path, tiny_tokenizer, "gpt2"), 4)
    before, config = reward.score(ITEMS), reward._model.config
    inputs = reward._encode(ITEMS)
    padding = reward._set_padding(inputs)
    assert config.pad_token_id == padding is not None
    assert all(padding not in each["input_ids"] for each in inputs)
    assert reward._set_padding([{"input_ids": list(range(config.vocab_size))}]) is None
    assert [len(each) for each in reward._batches([3, 3, 2], padded=False)] == [1, 1, 1]
    monkeypatch.setattr(reward, "_set_padding", lambda inputs: None)
    np.testing.assert_allclose(reward.score(ITEMS), before, atol=1e-5)


def test_scores_are_those_of_transformers_itself(model: Path) -> None:
    import transformers

    tokenizer = transformers.AutoTokenizer.from_pretrained(str(model))
    direct = transformers.AutoModelForSequenceClassification.from_pretrained(str(model)).eval()
    expected = []
    for messages, answer in ITEMS:
        if tokenizer.chat_template:
            text = tokenizer.apply_chat_template([*messages, {"role": "assistant", "content": answer}], tokenize=False)
            inputs = tokenizer(text, add_special_tokens=False, return_tensors="pt")
        else:
            inputs = tokenizer("\n\n".join(m["content"] for m in messages), answer, return_tensors="pt")
        with torch.inference_mode():
            expected.append(direct(**inputs).logits[0, 0].item())
    np.testing.assert_allclose(load(model, 4).score(ITEMS), expected, atol=1e-5)


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("token", ["<|im_start|>", "!", None])
def test_the_tokenizers_padding_does_not_matter(
    side: str, token: str | None, tmp_path: Path, tiny_tokenizer: Path
) -> None:
    import transformers

    model = make_model(tmp_path, tiny_tokenizer, "llama")
    before = load(model, 1).score(ITEMS)
    tokenizer = transformers.AutoTokenizer.from_pretrained(str(model))
    tokenizer.padding_side, tokenizer.pad_token = side, token
    tokenizer.save_pretrained(model)
    np.testing.assert_allclose(load(model, 4).score(ITEMS), before, atol=1e-5)


def test_long_texts_lose_their_beginning(tmp_path: Path, tiny_tokenizer: Path) -> None:
    model = make_model(tmp_path, tiny_tokenizer, "llama")
    reward = load_reward(RewardSettings(model=f"hf/{model}", max_length=16))
    endings = [
        ([{"role": "user", "content": start * 50}], "An answer that is longer than that, by far.") for start in "ab"
    ]
    one, other = reward.score(endings)
    assert one == pytest.approx(other, abs=1e-5)
    # Rows and manifest have its name.
    assert reward.name == f"hf/{model.name}"


def test_half_precision_is_near(tmp_path: Path, tiny_tokenizer: Path) -> None:
    model = make_model(tmp_path, tiny_tokenizer, "llama")
    half = load_reward(RewardSettings(model=f"hf/{model}", dtype="bfloat16"))
    whole = load(model, 4)
    np.testing.assert_allclose(half.score(ITEMS), whole.score(ITEMS), atol=0.05)
    assert half.digest != whole.digest


def test_of_several_numbers_the_score_has_to_be_named(tmp_path: Path, tiny_tokenizer: Path) -> None:
    model = make_model(tmp_path, tiny_tokenizer, "bert", num_labels=3)
    with pytest.raises(ConfigError, match=r"gives 3 numbers.*from 0 to 2"):
        load(model, 4).score(ITEMS)
    one, other = (load_reward(RewardSettings(model=f"hf/{model}", label=n)).score(ITEMS) for n in (0, 2))
    assert not np.allclose(one, other)
    with pytest.raises(ConfigError, match=r"reward\.label is 3"):
        load_reward(RewardSettings(model=f"hf/{model}", label=3)).score(ITEMS)


def test_an_output_that_has_a_score_is_read_by_it(tmp_path: Path, tiny_tokenizer: Path) -> None:
    """As ArmoRM's: logits of many attributes beside one score."""
    from types import SimpleNamespace

    model = make_model(tmp_path, tiny_tokenizer, "bert", num_labels=3)
    reward = load(model, 4)
    inner = reward._model.forward
    reward._model.forward = lambda **batch: SimpleNamespace(
        logits=(out := inner(**batch)).logits, score=out.logits[:, 1]
    )
    by_label = load_reward(RewardSettings(model=f"hf/{model}", label=1))
    np.testing.assert_allclose(reward.score(ITEMS), by_label.score(ITEMS), atol=1e-6)


def test_a_head_that_is_code_of_its_own_is_refused(tmp_path: Path, tiny_tokenizer: Path) -> None:
    model = make_model(tmp_path, tiny_tokenizer, "llama")
    config = json.loads((model / "config.json").read_text())
    config["auto_map"] = {"AutoModelForSequenceClassification": "modeling_custom.LlamaForRewardModelWithGating"}
    (model / "config.json").write_text(json.dumps(config))
    with pytest.raises(ConfigError, match=r"reward\.trust_remote_code=true"):
        load(model, 4)


def test_a_model_without_a_trained_head_is_refused(tmp_path: Path, tiny_tokenizer: Path) -> None:
    import transformers

    model = make_model(tmp_path, tiny_tokenizer, "bert")
    transformers.AutoModel.from_config(transformers.AutoConfig.from_pretrained(str(model))).save_pretrained(model)
    with pytest.raises(ConfigError, match=r"lack classifier.*would be random"):
        load(model, 4)


def test_a_device_that_is_not_there_is_one_line(tmp_path: Path, tiny_tokenizer: Path) -> None:
    with pytest.raises(ConfigError, match=r"reward\.device"):
        load_reward(RewardSettings(model=f"hf/{make_model(tmp_path, tiny_tokenizer, 'bert')}", device="cuda:77"))


def test_other_weights_in_the_same_folder_are_another_model(model: Path) -> None:
    import transformers

    settings = RewardSettings(model=f"hf/{model}")
    before = load(model, 1).digest, rewards.identify_models(settings)
    assert before == (load(model, 2).digest, rewards.identify_models(settings))
    changed = transformers.AutoModelForSequenceClassification.from_pretrained(str(model))
    with torch.no_grad():
        next(changed.parameters()).add_(1.0)
    changed.save_pretrained(model)
    after = load(model, 1).digest, rewards.identify_models(settings)
    assert before[0] != after[0] and before[1] != after[1]


def test_a_missing_model_is_one_line() -> None:
    with pytest.raises(ConfigError, match="no/such-model") as error:
        load_reward(RewardSettings(model="hf/no/such-model"))
    assert "\n" not in str(error.value)
