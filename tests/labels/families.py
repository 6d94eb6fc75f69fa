"""Small tokenizers of the families that are in use, each trained on the bundled sample, with a chat template and an EOS."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import cache
from typing import Any

from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

from tests.conftest import CHAT_TEMPLATE, SAMPLE

MARKS = ["<|im_start|>", "<|im_end|>"]
# As Mistral's: the response follows the last control token at once.
INST_TEMPLATE = (
    "{% for m in messages %}{% if m['role'] == 'assistant' %}{{ m['content'] }}{{ eos_token }}"
    "{% else %}<|im_start|>{{ m['content'] }}<|im_end|>{% endif %}{% endfor %}"
)
# The prompt ends in a space, which tokenizers like to join with the word behind it.
SPACE_TEMPLATE = (
    "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}{{ eos_token if m['role'] == 'assistant' }}\n{% endfor %}"
    "{% if add_generation_prompt %}assistant: {% endif %}"
)


def lines() -> list[str]:
    return [json.loads(line)["chosen"] for line in SAMPLE.read_text("utf-8").splitlines()[:200]]


def fast(tokenizer: Tokenizer, **options: Any) -> PreTrainedTokenizerFast:
    settings = {"eos_token": MARKS[1], "pad_token": MARKS[1], "chat_template": CHAT_TEMPLATE} | options
    return PreTrainedTokenizerFast(tokenizer_object=Tokenizer.from_str(tokenizer.to_str()), **settings)


@cache
def byte_level(trim_offsets: bool = False, vocab_size: int = 600) -> Tokenizer:
    """GPT-2, Llama 3, Qwen."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=trim_offsets)
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        special_tokens=MARKS,
        show_progress=False,
    )
    tokenizer.train_from_iterator(lines(), trainer)
    return tokenizer


@cache
def word_piece() -> Tokenizer:
    """BERT: lower-cases, drops white space, adds [CLS] unless told not to."""
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    trainer = trainers.WordPieceTrainer(
        vocab_size=600, special_tokens=["[UNK]", "[CLS]", "[SEP]", *MARKS], show_progress=False
    )
    tokenizer.train_from_iterator(lines(), trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 1), ("[SEP]", 2)]
    )
    return tokenizer


@cache
def unigram() -> Tokenizer:
    """T5, XLNet: words from a language model, `▁` before each."""
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
    tokenizer.decoder = decoders.Metaspace(prepend_scheme="always")
    trainer = trainers.UnigramTrainer(
        vocab_size=600, special_tokens=["<unk>", *MARKS], unk_token="<unk>", show_progress=False
    )
    tokenizer.train_from_iterator(lines(), trainer)
    return tokenizer


@cache
def metaspace() -> Tokenizer:
    """Llama 2, Mistral, Gemma: BPE over text that nothing splits beforehand, bytes for what it doesn't know, a BOS."""
    octets = [f"<0x{number:02X}>" for number in range(256)]
    tokenizer = Tokenizer(models.BPE(byte_fallback=True, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=True)
    tokenizer.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Metaspace(prepend_scheme="first")])
    trainer = trainers.BpeTrainer(vocab_size=900, special_tokens=["<unk>", "<s>", *MARKS, *octets], show_progress=False)
    tokenizer.train_from_iterator(lines(), trainer)
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    return tokenizer


FAMILIES: dict[str, Callable[[], Tokenizer]] = {
    "byte_level": byte_level,
    "word_piece": word_piece,
    "unigram": unigram,
    "metaspace": metaspace,
}
# Decoding gives the very text back.
EXACT = ("byte_level", "metaspace")
