"""PromptLayer's f-strings made safe for LangChain's: what is no variable is literal, JSON's braces included."""

from __future__ import annotations

import re
from collections.abc import Collection
from string import Formatter

_FIELD = re.compile(r"\{([^{}:!]+)((?:![rsa])?(?::[^{}]*)?)\}")


def escaped(text: str) -> str:
    """Return a template that renders as this very text."""
    return text.replace("{", "{{").replace("}", "}}")


def template(text: str, declared: Collection[str] = ()) -> str:
    """Return `text` as an f-string template of LangChain's: fields that are no variables become literal.

    Variables are the `declared` ones, or where none are, all that look like a name. In a text that is a proper
    template doubled braces mean one brace; in any other (JSON with single braces) PromptLayer leaves them alone.
    """
    try:
        parts = list(Formatter().parse(text))
    except ValueError:
        return _marked(text, declared)
    if any(name is not None and not _could_be(name, spec) for _, name, spec, _ in parts):
        return _marked(text, declared)
    found = []
    for words, name, spec, conversion in parts:
        found.append(escaped(words))
        if name is not None:
            field = "".join([name, f"!{conversion}" if conversion else "", f":{spec}" if spec else ""])
            found.append(f"{{{field}}}" if _is_variable(name, declared) else f"{{{{{field}}}}}")
    return "".join(found)


def _marked(text: str, declared: Collection[str]) -> str:
    """Escape all braces but those of variables."""
    found, end = [], 0
    for match in _FIELD.finditer(text):
        if _is_variable(match[1], declared):
            found += [escaped(text[end : match.start()]), match[0]]
            end = match.end()
    return "".join([*found, escaped(text[end:])])


def _could_be(name: str, spec: str | None) -> bool:
    """Tell whether LangChain can take a field's name: no attributes, no indices, no numbers, nothing nested."""
    if not name or name != name.strip() or name.isdigit() or set(name) & set(".[]\"'{}\n"):
        return False
    return not (spec and set(spec) & set("{}"))


def _is_variable(name: str, declared: Collection[str]) -> bool:
    return _could_be(name, None) and (name in declared if declared else name.isidentifier())
