"""The messages of a Prompt Blueprint as the parts of a LangChain chat template."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable
from typing import Any

from langchain_core.messages import BaseMessage, FunctionMessage, ToolMessage
from langchain_core.prompts import (
    AIMessagePromptTemplate,
    HumanMessagePromptTemplate,
    MessagesPlaceholder,
    PromptTemplate,
    SystemMessagePromptTemplate,
)
from langchain_core.prompts.chat import BaseStringMessagePromptTemplate
from langchain_core.prompts.dict import DictPromptTemplate
from langchain_core.prompts.image import ImagePromptTemplate
from langchain_core.prompts.string import get_template_variables

from . import _fstrings

Block = dict[str, Any]
_MANY = "pltrack_many"
_KINDS = {"image": "image", "audio": "audio", "video": "video"}


def declared(blueprint: Block) -> frozenset[str]:
    """Return the variables that a blueprint names, its messages' included; empty where it names none."""
    named = [blueprint, *(each for each in blueprint.get("messages") or [] if isinstance(each, dict))]
    return frozenset(name for each in named for name in each.get("input_variables") or [] if isinstance(name, str))


def completion(blueprint: Block, names: Collection[str]) -> dict[str, Any]:
    """Return what a PromptTemplate is made of."""
    words = "".join(_said(block) for block in blueprint.get("content") or [])
    made = text(words, blueprint.get("template_format"), names)
    return {"template": made.template, "template_format": made.template_format}


def parts(messages: Iterable[Block], names: Collection[str]) -> list[Any]:
    """Return one part for each message."""
    return [_part(message, names) for message in messages if isinstance(message, dict)]


def text(words: str, template_format: str | None, names: Collection[str]) -> PromptTemplate:
    """Return the template of a text; what is no proper Jinja2 is taken literally, as PromptLayer does."""
    if template_format == "jinja2":
        try:
            return PromptTemplate.from_template(words, template_format="jinja2")
        except Exception:  # noqa: BLE001 -- jinja2's errors, without importing it
            return PromptTemplate.from_template(_fstrings.escaped(words))
    return PromptTemplate.from_template(_fstrings.template(words, names))


# -- messages -------------------------------------------------------------------------------------------------


class AnswerTemplate(BaseStringMessagePromptTemplate):
    """A tool's or function's answer, which LangChain has no template for."""

    tool_call_id: str | None = None
    function: str | None = None

    def format(self, **kwargs: Any) -> BaseMessage:
        """Return the message."""
        return self._message(self.prompt.format(**kwargs))

    async def aformat(self, **kwargs: Any) -> BaseMessage:
        """Return the message."""
        return self._message(await self.prompt.aformat(**kwargs))

    def _message(self, content: str) -> BaseMessage:
        if self.tool_call_id is not None:
            return ToolMessage(content=content, tool_call_id=self.tool_call_id, name=self.function)
        return FunctionMessage(content=content, name=self.function or "function")


class MediaVariable(DictPromptTemplate):
    """A variable that takes one address, one base64 text or one block, or a list of them."""

    def format(self, **kwargs: Any) -> dict[str, Any]:
        """Return the blocks in one, for `UserTemplate` to unpack."""
        value = kwargs[self.input_variables[0]]
        values = value if isinstance(value, list | tuple) else [] if value is None else [value]
        return {"type": _MANY, "blocks": [_medium(each) for each in values]}


class UserTemplate(HumanMessagePromptTemplate):
    """A user's message with media variables, each of which may be several blocks."""

    def format(self, **kwargs: Any) -> BaseMessage:
        """Return the message."""
        return _unpacked(super().format(**kwargs))

    async def aformat(self, **kwargs: Any) -> BaseMessage:
        """Return the message."""
        return _unpacked(await super().aformat(**kwargs))


def _unpacked(message: BaseMessage) -> BaseMessage:
    content: list[Any] = []
    for block in message.content:
        many = isinstance(block, dict) and block.get("type") == _MANY
        content += block["blocks"] if many else [block]  # type: ignore[index]
    message.content = content
    return message


def _part(message: Block, names: Collection[str]) -> Any:
    role, template_format = message.get("role"), message.get("template_format")
    if role == "placeholder":
        return MessagesPlaceholder(str(message.get("name")))
    content = message.get("content") or []
    content = [{"type": "text", "text": content}] if isinstance(content, str) else content
    if role in ("tool", "function"):
        prompt = text("".join(map(_said, content)), template_format, names)
        call = str(message.get("tool_call_id")) if role == "tool" else None
        return AnswerTemplate(prompt=prompt, tool_call_id=call, function=message.get("name"))
    kwargs: dict[str, Any] = {"name": message["name"]} if message.get("name") else {}
    prompts = _prompts(content, template_format, names)
    if role in ("system", "developer"):
        kwargs |= {"__openai_role__": "developer"} if role == "developer" else {}
        return SystemMessagePromptTemplate(prompt=prompts, additional_kwargs=kwargs)
    if role == "assistant":
        calls = ("tool_calls", "function_call")
        kwargs |= {name: _without_nulls(message[name]) for name in calls if message.get(name)}
        return AIMessagePromptTemplate(prompt=prompts, additional_kwargs=kwargs)
    media = isinstance(prompts, list) and any(isinstance(each, MediaVariable) for each in prompts)
    kind = UserTemplate if media else HumanMessagePromptTemplate
    return kind(prompt=prompts, additional_kwargs=kwargs)


def _without_nulls(calls: Any) -> Any:
    if isinstance(calls, list):
        return [_without_nulls(each) for each in calls]
    return {name: value for name, value in calls.items() if value is not None}


# -- content --------------------------------------------------------------------------------------------------


def _prompts(content: list[Block], template_format: str | None, names: Collection[str]) -> Any:
    if not content:
        return PromptTemplate.from_template("")
    if len(content) == 1 and (content[0].get("type") == "text" or not _is_media(content[0])):
        return _block(content[0], template_format, names)
    return [_block(block, template_format, names) for block in content]


def _is_media(block: Block) -> bool:
    return block.get("type") in ("image_url", "media", "media_variable")


def _block(block: Block, template_format: str | None, names: Collection[str]) -> Any:
    kind = block.get("type")
    variable = block.get("name") if kind == "media_variable" else block.get("image_variable")
    if variable and _is_media(block):
        return MediaVariable(template={"type": _MANY, "name": f"{{{variable}}}"}, template_format="f-string")
    if kind == "image_url" and isinstance(block.get("image_url"), dict):
        return _image(block["image_url"], template_format, names)
    if kind == "media" and isinstance(block.get("media"), dict):
        return _file(block["media"])
    if kind == "text" and isinstance(block.get("text"), str):
        return text(block["text"], template_format, names)
    return PromptTemplate.from_template(_fstrings.escaped(_said(block)))


def _image(image: Block, template_format: str | None, names: Collection[str]) -> Any:
    url = text(str(image.get("url") or ""), template_format, names)
    fields = {"url": url.template} | ({"detail": image["detail"]} if image.get("detail") else {})
    if {"url", "path", "detail"} & set(url.input_variables):  # names that LangChain keeps for itself
        form = {"type": "image_url", "image_url": fields}
        return DictPromptTemplate(template=form, template_format="f-string")
    variables = get_template_variables(url.template, url.template_format)
    return ImagePromptTemplate(template=fields, template_format=url.template_format, input_variables=variables)


def _file(media: Block) -> DictPromptTemplate:
    """Return a block of LangChain's own for a file that is part of the template."""
    mime, where = str(media.get("type") or "image/jpeg"), str(media.get("url") or "")
    if where.startswith("data:") and ";base64," in where:
        where, encoded = where.split(";base64,", 1)[1], True
    else:
        encoded = media.get("format") == "base64"
    block = {"type": _KINDS.get(mime.split("/")[0], "file"), "mime_type": mime}
    block["base64" if encoded else "url"] = where
    safe = {name: _fstrings.escaped(value) for name, value in block.items()}
    return DictPromptTemplate(template=safe, template_format="f-string")


def _medium(value: Any) -> Block:
    if isinstance(value, dict):
        return value
    where = str(value)
    if not where.startswith(("http://", "https://", "data:", "gs://", "s3://")):
        where = f"data:image/jpeg;base64,{where}"
    return {"type": "image_url", "image_url": {"url": where}}


def _said(block: Any) -> str:
    """Return a block's text; of one that has none, all that it says."""
    if isinstance(block, dict) and isinstance(block.get("text"), str) and block.get("type") == "text":
        return str(block["text"])
    return block if isinstance(block, str) else json.dumps(block, ensure_ascii=False)
