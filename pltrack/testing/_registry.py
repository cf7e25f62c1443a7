"""The prompt registry of one workspace: versions, release labels, and rendering as the server does it."""

import copy
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from string import Formatter
from typing import Any

JINJA_NAME = re.compile(r"{{-?\s*([A-Za-z_]\w*)\s*-?}}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Version:
    """One published version of a prompt."""

    id: int
    number: int
    template: dict[str, Any]
    metadata: dict[str, Any] | None
    commit_message: str | None
    created_at: str


@dataclass(slots=True, kw_only=True)
class Prompt:
    """A prompt with all its versions; labels point at version numbers."""

    id: int
    name: str
    tags: list[str]
    versions: list[Version] = field(default_factory=list)
    labels: dict[str, int] = field(default_factory=dict)


class Registry:
    """Keep prompts by name. Not thread-safe: its owner holds the lock."""

    def __init__(self) -> None:
        self._prompts: dict[str, Prompt] = {}
        self._versions = 0

    def publish(
        self,
        name: str,
        template: Mapping[str, Any],
        *,
        tags: Iterable[str] = (),
        labels: Iterable[str] = (),
        metadata: Mapping[str, Any] | None = None,
        commit_message: str | None = None,
    ) -> tuple[Prompt, Version]:
        """Add a version and move the labels to it."""
        prompt = self._prompts.setdefault(name, Prompt(id=len(self._prompts) + 1, name=name, tags=[]))
        self._versions += 1
        version = Version(
            id=self._versions,
            number=len(prompt.versions) + 1,
            template=copy.deepcopy(dict(template)),
            metadata=copy.deepcopy(dict(metadata)) if metadata is not None else None,
            commit_message=commit_message,
            created_at=datetime.now(UTC).isoformat(),
        )
        prompt.versions.append(version)
        prompt.labels.update(dict.fromkeys(labels, version.number))
        prompt.tags.extend(tag for tag in tags if tag not in prompt.tags)
        return prompt, version

    def find(
        self, identifier: str | int, version: int | None = None, label: str | None = None
    ) -> tuple[Prompt, Version] | None:
        """Return the named version; a label wins over a number, neither means the newest."""
        prompt = self._prompts.get(str(identifier)) or self._by_id(str(identifier))
        if prompt is None:
            return None
        number = len(prompt.versions) if version is None else version
        if label is not None:
            number = prompt.labels.get(label, 0)
        if not 1 <= number <= len(prompt.versions):
            return None
        return prompt, prompt.versions[number - 1]

    def all(self, *, label: str | None = None, name: str | None = None) -> list[tuple[Prompt, Version]]:
        found = []
        for prompt in self._prompts.values():
            fits = (label is None or label in prompt.labels) and (name is None or name in prompt.name)
            match = self.find(prompt.name, label=label) if fits else None
            if match:
                found.append(match)
        return found

    def _by_id(self, identifier: str) -> Prompt | None:
        return next((prompt for prompt in self._prompts.values() if str(prompt.id) == identifier), None)


def as_json(prompt: Prompt, version: Version) -> dict[str, Any]:
    """Return the template as `POST /prompt-templates/{name}` does."""
    return {
        "id": prompt.id,
        "prompt_name": prompt.name,
        "tags": list(prompt.tags),
        "workspace_id": 1,
        "commit_message": version.commit_message,
        "metadata": copy.deepcopy(version.metadata),
        "prompt_template": copy.deepcopy(version.template),
        "llm_kwargs": None,
        "provider_base_url": None,
        "version": version.number,
        "snippets": [],
        "warning": None,
    }


def render(template: dict[str, Any], variables: Mapping[str, Any]) -> dict[str, Any]:
    """Fill the variables in; what is missing becomes empty text, a placeholder becomes its messages."""
    template = copy.deepcopy(template)
    if template["type"] == "completion":
        _fill(template["content"], template.get("template_format"), variables)
        return template
    messages: list[dict[str, Any]] = []
    for message in template["messages"]:
        if message["role"] == "placeholder":
            given = variables.get(message["name"])
            messages.extend(given if isinstance(given, list) else [])
            continue
        _fill(message.get("content") or [], message.get("template_format"), variables)
        messages.append(message)
    return template | {"messages": messages}


def _fill(blocks: list[dict[str, Any]], template_format: str | None, variables: Mapping[str, Any]) -> None:
    filler = _jinja2 if template_format == "jinja2" else _f_string
    for block in blocks:
        if block["type"] == "text":
            block["text"] = filler(block["text"], variables)


def _f_string(text: str, variables: Mapping[str, Any]) -> str:
    try:
        names = [name for _, name, _, _ in Formatter().parse(text) if name]
        return text.format(**{name: _or_empty(variables.get(name)) for name in names})
    except (ValueError, LookupError, AttributeError):
        return text  # not a template, for example JSON: the server leaves it as it is


def _jinja2(text: str, variables: Mapping[str, Any]) -> str:
    """Fill plain names only: this server has no Jinja2 at hand."""
    return JINJA_NAME.sub(lambda found: str(_or_empty(variables.get(found[1]))), text)


def _or_empty(value: Any) -> Any:
    return "" if value is None else value
