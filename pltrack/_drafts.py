"""What can be published, a LangChain template or a text, as a Prompt Blueprint."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from . import _fstrings
from ._blueprint import blocks as contents
from ._blueprint import messages
from ._plain import plain

Block = dict[str, Any]
_FORMATS = ("f-string", "jinja2")
_ROLES = {
    "HumanMessagePromptTemplate": "user",
    "AIMessagePromptTemplate": "assistant",
    "SystemMessagePromptTemplate": "system",
}


def blueprint(argument: str, template: Any) -> Block:
    """Return the blueprint of a template, a text (a completion) or a blueprint; errors name `argument`."""
    if isinstance(template, str):
        from langchain_core.prompts import PromptTemplate

        return _completion(argument, PromptTemplate.from_template(_fstrings.template(template)))
    if isinstance(template, Mapping):
        return _checked(argument, template)
    from langchain_core.prompts import ChatPromptTemplate, PromptTemplate

    if isinstance(template, PromptTemplate):
        return _completion(argument, template)
    if isinstance(template, ChatPromptTemplate):
        return _chat(argument, template)
    raise TypeError(
        f"{argument}: expected a ChatPromptTemplate, a PromptTemplate, a Prompt Blueprint or text, "
        f"got {type(template).__name__}"
    )


def _checked(argument: str, given: Mapping[str, Any]) -> Block:
    given = given.get("prompt_template", given)  # the SDK's dict has the blueprint inside
    kind = given.get("type") if isinstance(given, Mapping) else None
    needed = {"chat": "messages", "completion": "content"}.get(str(kind))
    if needed is None or not isinstance(given.get(needed), list | tuple):
        raise ValueError(
            f"{argument}: expected a Prompt Blueprint, {{'type': 'chat', 'messages': [...]}} or "
            f"{{'type': 'completion', 'content': [...]}}, got type {kind!r}"
        )
    found: Block = plain(dict(given), depth=60, budget=500_000)
    return found


def _completion(argument: str, template: Any) -> Block:
    return {
        "type": "completion",
        "content": [contents.said(template.template)],
        "template_format": _format(argument, template),
        "input_variables": _variables(template),
    }


def _chat(argument: str, template: Any) -> Block:
    found: Block = {
        "type": "chat",
        "messages": [_message(argument, part) for part in template.messages],
        "input_variables": _variables(template),
    }
    told = template.metadata or {}
    kept = ("tools", "tool_choice", "functions", "function_call")
    return found | {name: plain(told[name]) for name in kept if told.get(name)}


def _variables(template: Any) -> list[str]:
    partial = (name for name in template.partial_variables)
    return sorted({*template.input_variables, *partial})


def _message(argument: str, part: Any) -> Block:
    from langchain_core.messages import BaseMessage
    from langchain_core.prompts import MessagesPlaceholder
    from langchain_core.prompts.chat import BaseStringMessagePromptTemplate

    if isinstance(part, BaseMessage):
        return _literal(messages.message(messages.snap(part)))
    if isinstance(part, MessagesPlaceholder):
        return {"role": "placeholder", "name": part.variable_name}
    known = next((_ROLES[kind.__name__] for kind in type(part).__mro__ if kind.__name__ in _ROLES), None)
    if known is None and not isinstance(part, BaseStringMessagePromptTemplate):
        raise TypeError(f"{argument}: a {type(part).__name__} cannot be published")
    found: Block = {"role": known or "user"} | _content(argument, part.prompt)
    kwargs = part.additional_kwargs
    if known == "system" and kwargs.get("__openai_role__") == "developer":
        found["role"] = "developer"
    found |= {name: plain(kwargs[name]) for name in ("name", "tool_calls", "function_call") if kwargs.get(name)}
    return found if known is not None else found | _role(part)


def _role(part: Any) -> Block:
    """Return the role of a message that is no system's, user's or assistant's."""
    if getattr(part, "tool_call_id", None) is not None:
        return {"role": "tool", "tool_call_id": part.tool_call_id}
    if getattr(part, "function", None) is not None:
        return {"role": "function", "name": part.function}
    role = str(getattr(part, "role", "user"))
    return {"role": role} if role in ("system", "developer", "user", "assistant") else {"name": role}


def _content(argument: str, prompt: Any) -> Block:
    prompts = prompt if isinstance(prompt, list) else [prompt]
    formats = {_format(argument, each) for each in prompts if hasattr(each, "template_format")}
    # A dict template is always an f-string, also beside Jinja2: only what has variables decides.
    deciding = {_format(argument, each) for each in prompts if each.input_variables} or formats
    if len(deciding) > 1:
        raise ValueError(f"{argument}: one message cannot be an f-string and Jinja2 at once")
    return {
        "content": [block for each in prompts for block in _blocks(each)],
        "template_format": next(iter(deciding), "f-string"),
        "input_variables": sorted({name for each in prompts for name in each.input_variables}),
    }


def _blocks(prompt: Any) -> list[Block]:
    form = prompt.template
    if isinstance(form, str):
        return [contents.said(form)]
    if form.get("type") == "pltrack_many":
        return [{"type": "media_variable", "name": prompt.input_variables[0]}]
    if "type" not in form:  # an image template: only its address and detail
        return [{"type": "image_url", "image_url": plain(form)}]
    return contents.blocks(plain(form))


def _literal(message: Block) -> Block:
    """Protect the braces of a message that is no template."""
    for block in message.get("content") or []:
        if block.get("type") == "text":
            block["text"] = _fstrings.escaped(block["text"])
    return message


def _format(argument: str, prompt: Any) -> str:
    chosen: str = prompt.template_format
    if chosen not in _FORMATS:
        raise ValueError(f"{argument}: PromptLayer renders f-strings and Jinja2, not {chosen}")
    return chosen
