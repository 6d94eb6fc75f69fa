"""The prompts of reviser and judge: Jinja2 files, rendered once, with data-set text delimited as data.

`diagnose.md` opens the reviser's conversation and shows the texts; `revise_<reason>.md`, or `edits.md` for all reasons, is its
second turn. Text from the data is only ever a *value*: the one rendering pass never looks for template syntax in it. Each text
stands between tags that carry a fence, a hash of these texts: no text can contain the tag that would end it. Only
`judge_revision_local.md` has no tags, as small models judge worse by them: there a text can sway the judgement of its own row.

`correct.md` is a whole conversation, with a line `### system`, `### user` or `### assistant` before each turn: instructions and
examples, the same for every row, and the row's texts last. So a prompt cache can keep all but these.
"""

import hashlib
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jinja2 import StrictUndefined, TemplateError
from jinja2.sandbox import ImmutableSandboxedEnvironment

from pipeline import resources
from pipeline.config.settings import REASONS
from pipeline.errors import ConfigError
from pipeline.schema import digest
from pipeline.text import one_line

NAMES = ("diagnose", *(f"revise_{reason}" for reason in REASONS), "edits", "correct")
_TURN = re.compile(r"^### (system|user|assistant)\n", re.MULTILINE)
_QUERY = [{"role": "user", "content": "q"}]


class _Templates:
    """The prompts `names` of a folder; without one, as shipped. example: values that each of them must be able to show.

    Raises ConfigError when a prompt is missing, malformed or uses an unknown variable.
    """

    def __init__(self, folder: str | None, names: Sequence[str], example: Mapping[str, Any]) -> None:
        root = Path(folder) if folder else resources.folder("prompts")
        texts = {}
        for name in names:
            try:
                texts[name] = (root / f"{name}.md").read_text("utf-8")
            except (OSError, UnicodeDecodeError) as error:
                expected = f"expected the files {', '.join(names)} (.md)"
                raise ConfigError(f"{root / name}.md: prompt can't be read ({error}); {expected}") from None
        self.digest = digest(texts)
        # Prompts are plain text: nothing to escape for HTML.
        environment = ImmutableSandboxedEnvironment(undefined=StrictUndefined, autoescape=False, trim_blocks=True)
        self._templates = {}
        for name, text in texts.items():
            try:
                opening, *turns = _TURN.split(text)
                if turns and opening.strip():
                    raise ValueError("there is text before its first turn")
                pairs = zip(turns[::2], turns[1::2], strict=True) if turns else [("user", opening)]
                self._templates[name] = [(role, environment.from_string(turn)) for role, turn in pairs]
                self._fill(name, **example)
            except (TemplateError, TypeError, ValueError, ArithmeticError, LookupError, AttributeError) as error:
                raise ConfigError(f"{root / name}.md: prompt can't be rendered: {one_line(error, 1000)}") from None

    def _fill(self, name: str, **values: Any) -> list[dict[str, str]]:
        """The turns of a prompt; one without marked turns is the user's."""
        return [{"role": role, "content": turn.render(**values).strip()} for role, turn in self._templates[name]]


class Prompts(_Templates):
    """The reviser's prompts."""

    def __init__(self, folder: str | None = None) -> None:
        example = {"messages": _QUERY, "reference": "r", "draft": "d", "fence": "f", "reasons": REASONS}
        super().__init__(folder, NAMES, example | {"reason": REASONS[0]})

    def render(self, name: str, messages: Sequence[dict[str, str]], reference: str, draft: str, **more: str) -> str:
        """The last turn of one prompt for one row. more: `reason` for edits."""
        return self.turns(name, messages, reference, draft, **more)[-1]["content"]

    def turns(
        self, name: str, messages: Sequence[dict[str, str]], reference: str, draft: str, **more: str
    ) -> list[dict[str, str]]:
        """All turns of one prompt for one row."""
        texts = {"messages": messages, "reference": reference, "draft": draft}
        return self._fill(name, **texts, fence=fence(messages, reference, draft), reasons=REASONS, **more)


class JudgePrompts(_Templates):
    """The prompt of a judge. kind: pointwise, pairwise, revision or revision_local."""

    def __init__(self, kind: str, folder: str | None = None) -> None:
        self._name = f"judge_{kind}"
        shown = {"answer": "a"} if kind == "pointwise" else {"first": "a", "second": "b"}
        shown |= {"reference": "r"} if kind.startswith("revision") else {}
        super().__init__(folder, [self._name], {"messages": _QUERY, "fence": "f", **shown})

    def render(self, messages: Sequence[dict[str, str]], first: str, second: str = "") -> str:
        """Variables: messages, fence, and the answer, or of a pair first and second."""
        mark = fence(messages, first, second)
        texts = {"answer": first, "first": first, "second": second}
        return self._fill(self._name, messages=messages, fence=mark, **texts)[-1]["content"]

    def render_comparison(self, messages: Sequence[dict[str, str]], reference: str, first: str, second: str) -> str:
        """Variables: messages, reference, first, second, and a fence that is the same in both orders."""
        mark = fence(messages, reference, "\0".join(sorted((first, second))))
        texts = {"reference": reference, "first": first, "second": second}
        return self._fill(self._name, messages=messages, fence=mark, **texts)[-1]["content"]


def fence(messages: Sequence[dict[str, str]], reference: str, draft: str) -> str:
    """Eight hex digits that depend on all the text that they delimit."""
    joined = "\0".join([*(m["content"] for m in messages), reference, draft])
    return hashlib.sha256(joined.encode("utf-8", "surrogatepass")).hexdigest()[:8]


def response_format(name: str, properties: Mapping[str, Any]) -> dict[str, Any]:
    """The parameter `response_format` that holds a model to a JSON object with exactly these properties."""
    return {"type": "json_schema", "json_schema": {"name": name, "strict": True, "schema": json_object(properties)}}


def json_object(properties: Mapping[str, Any]) -> dict[str, Any]:
    """The JSON schema of an object with exactly these properties."""
    required = {"required": list(properties), "additionalProperties": False}
    return {"type": "object", "properties": dict(properties), **required}
