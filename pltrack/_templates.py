"""Prompt Blueprints as LangChain templates that link what they produce to the version they came from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self, cast

from langchain_core.messages import BaseMessage, HumanMessage
from langchain_core.prompt_values import ChatPromptValue, PromptValue, StringPromptValue
from langchain_core.prompts import ChatPromptTemplate, MessagesPlaceholder, PromptTemplate
from langchain_core.prompts.message import BaseMessagePromptTemplate
from langchain_core.prompts.string import DEFAULT_FORMATTER_MAPPING
from pydantic import PrivateAttr

from . import _parts
from ._blueprint import messages as blueprints
from ._links import LINK_ATTRIBUTE, remember_rendered
from ._plain import plain
from ._records import Link
from ._runtime import guarded

Made = list[tuple[Any, list[BaseMessage]]]  # which part of the template made which messages
_SCALARS = (str, int, float, bool, type(None))


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """The version that a template was made from."""

    name: str
    version: int
    local: bool = False

    def as_metadata(self) -> dict[str, Any]:
        """Return it as the template carries it: in a field that copies, partials and pickles keep."""
        told: dict[str, Any] = {"prompt_name": self.name, "prompt_version": self.version}
        return told | ({"prompt_local": True} if self.local else {})


def template(blueprint: dict[str, Any], origin: Origin | None) -> RegistryChatPrompt | RegistryPrompt:
    """Return the template of a blueprint; without an origin it links nothing."""
    told = origin.as_metadata() if origin is not None else {}
    declared = _parts.declared(blueprint)
    if blueprint.get("type") == "completion":
        text = _parts.completion(blueprint, declared)
        return RegistryPrompt(**text, metadata=told or None)
    for name in ("tools", "tool_choice", "functions", "function_call"):
        if blueprint.get(name):
            told[name] = blueprint[name]
    parts = _parts.parts(blueprint.get("messages") or [], declared)
    return RegistryChatPrompt.of(parts, metadata=told or None)


class RegistryPromptValue(ChatPromptValue):
    """Messages that link themselves; so does the text that a completion model gets of them."""

    def to_string(self) -> str:
        """Return the prompt as text, remembered for the completion model that is called with it."""
        text = super().to_string()
        _remember(text, next(filter(None, map(_stamp_of, self.messages)), None))
        return text

    @classmethod
    def lc_id(cls) -> list[str]:
        """Be a ChatPromptValue to whoever stores it."""
        return [*cls.get_lc_namespace(), "ChatPromptValue"]


class RegistryText(StringPromptValue):
    """A text that links itself; so does the message that a chat model gets of it."""

    _link: Link | None = PrivateAttr(default=None)

    def to_messages(self) -> list[BaseMessage]:
        """Return the text as a message."""
        message = HumanMessage(content=self.text)
        return [message if self._link is None else _stamp(message, self._link)]

    @classmethod
    def lc_id(cls) -> list[str]:
        """Be a StringPromptValue to whoever stores it."""
        return [*cls.get_lc_namespace(), "StringPromptValue"]


class RegistryChatPrompt(ChatPromptTemplate):
    """A chat template of the registry: each time it is formatted, the new messages carry a link to its version."""

    @classmethod
    def lc_id(cls) -> list[str]:
        """Be a ChatPromptTemplate to whoever stores it."""
        return [*cls.get_lc_namespace(), "ChatPromptTemplate"]

    @classmethod
    def of(cls, parts: Sequence[Any], **fields: Any) -> Self:
        """Return the template made of these parts."""
        make: Any = cls  # to type checkers a model's arguments are its fields; LangChain's come first
        return cast("Self", make(list(parts), **fields))

    def format_messages(self, **kwargs: Any) -> list[BaseMessage]:
        """Return the formatted messages."""
        # LangChain's own loop, for it alone knows which messages are new and which are somebody's own.
        values = self._merge_partial_and_user_variables(**kwargs)
        made: Made = [
            (part, [part] if isinstance(part, BaseMessage) else part.format_messages(**values))
            for part in self.messages
        ]
        return self._linked(made, values)

    async def aformat_messages(self, **kwargs: Any) -> list[BaseMessage]:
        """Return the formatted messages."""
        values = self._merge_partial_and_user_variables(**kwargs)
        made: Made = [
            (part, [part] if isinstance(part, BaseMessage) else await part.aformat_messages(**values))
            for part in self.messages
        ]
        return self._linked(made, values)

    def format_prompt(self, **kwargs: Any) -> ChatPromptValue:
        """Return the formatted messages as a prompt value."""
        return RegistryPromptValue(messages=self.format_messages(**kwargs))

    async def aformat_prompt(self, **kwargs: Any) -> ChatPromptValue:
        """Return the formatted messages as a prompt value."""
        return RegistryPromptValue(messages=await self.aformat_messages(**kwargs))

    def __add__(self, other: Any) -> Self:
        """Return this template with more behind it; it still comes from the registry."""
        longer = super().__add__(other)
        partials = longer.partial_variables
        return self.of(longer.messages, partial_variables=partials, metadata=self.metadata)

    def _linked(self, made: Made, values: dict[str, Any]) -> list[BaseMessage]:
        messages = [message for _, some in made for message in some]
        _stamp_new(self, made, messages, values)
        return messages


class RegistryPrompt(PromptTemplate):
    """A completion template of the registry: its texts are known to come from its version."""

    @classmethod
    def lc_id(cls) -> list[str]:
        """Be a PromptTemplate to whoever stores it."""
        return [*cls.get_lc_namespace(), "PromptTemplate"]

    def format(self, **kwargs: Any) -> str:
        """Return the formatted text."""
        return self._formatted(kwargs).text

    def format_prompt(self, **kwargs: Any) -> PromptValue:
        """Return the formatted text as a prompt value."""
        return self._formatted(kwargs)

    async def aformat_prompt(self, **kwargs: Any) -> PromptValue:
        """Return the formatted text as a prompt value."""
        return self._formatted(kwargs)

    def __add__(self, other: Any) -> Self:
        """Return this template with more behind it; it still comes from the registry."""
        longer = super().__add__(other)
        kept = {name: getattr(longer, name) for name in ("template", "template_format", "partial_variables")}
        return type(self)(**kept, metadata=self.metadata)

    def _formatted(self, kwargs: dict[str, Any]) -> RegistryText:
        values = self._merge_partial_and_user_variables(**kwargs)
        value = RegistryText(text=DEFAULT_FORMATTER_MAPPING[self.template_format](self.template, **values))
        names = [*self.input_variables, *self.partial_variables]
        value._link = _link(self.metadata, {name: _kept(values[name]) for name in names if name in values})
        _remember(value.text, value._link)
        return value


# -- links ----------------------------------------------------------------------------------------------------


def _link(metadata: dict[str, Any] | None, variables: dict[str, Any]) -> Link | None:
    known = metadata or {}
    name, version = known.get("prompt_name"), known.get("prompt_version")
    if not isinstance(name, str) or not isinstance(version, int):
        return None
    return Link(name=name, version=version, variables=variables, local=bool(known.get("prompt_local")))


@guarded
def _stamp_new(template: RegistryChatPrompt, made: Made, messages: list[BaseMessage], values: dict[str, Any]) -> None:
    """Stamp the messages that were made just now; put copies where somebody's own would tell another link."""
    link = _link(template.metadata, _variables(made, values))
    if link is None or not messages:
        return
    stamped, position = False, 0
    for part, some in made:
        new = isinstance(part, BaseMessagePromptTemplate) and not isinstance(part, MessagesPlaceholder)
        for message in some:
            if new:
                _stamp(message, link)
                stamped = True
            elif _stamp_of(message) is not None:  # the history of an earlier turn, made by a template too
                messages[position] = _stamp(message.model_copy(), link)
            position += 1
    if not stamped:
        messages[0] = _stamp(messages[0].model_copy(), link)


def _stamp(message: BaseMessage, link: Link) -> BaseMessage:
    object.__setattr__(message, LINK_ATTRIBUTE, link)
    return message


def _stamp_of(message: BaseMessage) -> Link | None:
    return cast("Link | None", message.__dict__.get(LINK_ATTRIBUTE))


@guarded
def _remember(text: str, link: Link | None) -> None:
    if link is not None:
        remember_rendered(text, link)


def _variables(made: Made, values: dict[str, Any]) -> dict[str, Any]:
    """Return what was really rendered: of all the values given, those that the parts use."""
    found: dict[str, Any] = {}
    for part, some in made:
        if isinstance(part, MessagesPlaceholder):
            found[part.variable_name] = _as_blueprints(some)
        elif not isinstance(part, BaseMessage):
            found |= {name: _kept(values[name]) for name in part.input_variables if name in values}
    return found


def _as_blueprints(messages: Sequence[BaseMessage]) -> list[Any]:
    return [blueprints.message(blueprints.snap(message)) for message in messages]


def _kept(value: Any) -> Any:
    return value if type(value) in _SCALARS else plain(value)
