"""The reviser's prompts: Jinja2 files, rendered once, with data-set text delimited as data.

Files in `prompts/` (or the folder in `reviser.prompts`): `diagnose.md` opens the conversation and shows the texts;
`revise_<reason>.md`, or `edits.md` for all reasons, is its second turn; `sentence.md` asks about one sentence of the draft.
Text from the data is only ever a *value*: it is put in by the one rendering pass and never looked at for template syntax.
Each text stands between tags that carry a fence, a hash of the very texts: no text can contain the tag that would end it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

from jinja2 import StrictUndefined, Template, TemplateError
from jinja2.sandbox import ImmutableSandboxedEnvironment

from pipeline import resources
from pipeline.config import REASONS, digest
from pipeline.errors import ConfigError

NAMES = ("diagnose", *(f"revise_{reason}" for reason in REASONS), "edits", "sentence")


class Prompts:
    """The prompts of a folder.

    Raises ConfigError when a prompt is missing, malformed or uses an unknown variable.
    """

    def __init__(self, folder: str | None = None) -> None:
        self.folder = Path(folder) if folder else resources.folder("prompts")
        # Prompts are plain text: nothing to escape for HTML.
        environment = ImmutableSandboxedEnvironment(undefined=StrictUndefined, autoescape=False, trim_blocks=True)
        sources = {name: self._read(name) for name in NAMES}
        self.digest = digest(sources)
        self._templates: dict[str, Template] = {}
        for name, text in sources.items():
            try:
                self._templates[name] = environment.from_string(text)
                self.render(name, [{"role": "user", "content": "q"}], "r", "d", reason=REASONS[0], sentence="s")
            except (TemplateError, TypeError, ValueError, ArithmeticError, LookupError, AttributeError) as error:
                reason = " ".join(str(error).split())
                raise ConfigError(f"{self.folder / name}.md: prompt can't be rendered: {reason}") from None

    def _read(self, name: str) -> str:
        path = self.folder / f"{name}.md"
        try:
            return path.read_text("utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(
                f"{path}: prompt can't be read ({error}); expected the files {', '.join(NAMES)} (.md)"
            ) from None

    def render(self, name: str, messages: Sequence[dict[str, str]], reference: str, draft: str, **more: str) -> str:
        """One prompt for one row. Variables: messages, reference, draft, fence, reasons; in `edits` and `sentence` also
        reason, in `sentence` also sentence."""
        text = self._templates[name].render(
            messages=messages,
            reference=reference,
            draft=draft,
            fence=fence(messages, reference, draft),
            reasons=REASONS,
            **more,
        )
        return text.strip()


def fence(messages: Sequence[dict[str, str]], reference: str, draft: str) -> str:
    """Eight hex digits that depend on all the text they guard."""
    joined = "\0".join([*(m["content"] for m in messages), reference, draft])
    return hashlib.sha256(joined.encode("utf-8", "surrogatepass")).hexdigest()[:8]
