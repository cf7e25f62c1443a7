"""Tool definitions and choices of any provider's form -> the blueprint's."""

from __future__ import annotations

import re
from collections.abc import Iterable

from .._plain import Json, dumps
from .media import Block

SECRET = re.compile(r"header|authorization|token$|api_?key|password|secret|credential", re.IGNORECASE)

# What the name or type of a tool that the provider runs begins with: the blueprint's name for it.
_BUILT_IN = (
    ("web_search", "web_search"),
    ("google_search", "web_search"),
    ("googleSearch", "web_search"),
    ("file_search", "file_search"),
    ("code_interpreter", "code_interpreter"),
    ("code_execution", "code_interpreter"),
    ("codeExecution", "code_interpreter"),
    ("image_generation", "image_generation"),
    ("google_maps", "google_maps"),
    ("googleMaps", "google_maps"),
    ("url_context", "url_context"),
    ("urlContext", "url_context"),
    ("web_fetch", "url_context"),
    ("mcp", "mcp"),
    ("bash", "bash"),
    ("shell", "shell"),
    ("local_shell", "shell"),
    ("apply_patch", "apply_patch"),
    ("text_editor", "text_editor"),
)
_PARAMETERS = ("parameters", "input_schema", "inputSchema", "parametersJsonSchema", "parameters_json_schema")
_DECLARATIONS = ("function_declarations", "functionDeclarations")
_CHOICES = {"any": "required", "required": "required", "auto": "auto", "none": "none"}


def tools_of(offered: Iterable[Json], provider: str = "unknown") -> list[Block]:
    """Return the blueprint's definitions of these tools; one of a form that is not known keeps it as JSON."""
    found: list[Block] = []
    for tool in offered:
        found += _tools(tool, provider) if isinstance(tool, dict) else [_unknown(tool)]
    return found


def tool_choice_of(choice: Json) -> Json:
    """Return the blueprint's form of a choice: None, a word, or the one function that must be called."""
    if choice is None or isinstance(choice, str):
        return choice
    if isinstance(choice, bool):
        return "required" if choice else "none"
    if not isinstance(choice, dict):
        return dumps(choice).decode()
    for nested in (choice.get("function"), choice.get("tool"), choice):
        if isinstance(nested, dict) and isinstance(nested.get("name"), str) and choice.get("type") != "mcp":
            return {"type": "function", "function": {"name": nested["name"]}}
    kind = choice.get("type") if "type" in choice else next(iter(choice), None)
    word = _CHOICES.get(kind) if isinstance(kind, str) else None
    return word or dumps(choice).decode()


def _tools(tool: Block, provider: str) -> list[Block]:
    for name in _DECLARATIONS:
        if isinstance(tool.get(name), list):
            rest = {key: value for key, value in tool.items() if key != name}
            return tools_of([*tool[name], rest] if rest else tool[name], provider)
    for name in ("function", "toolSpec"):
        nested = tool.get(name)
        if isinstance(nested, dict):
            return [_function(nested) or _unknown(tool)]
    built_in = _built_in(tool, provider)
    return [built_in or _function(tool) or _unknown(tool)]


def _function(tool: Block) -> Block | None:
    name = tool.get("name", tool.get("title"))
    if not isinstance(name, str) or tool.get("type") not in (None, "function", "custom", "object"):
        return None
    found: Block = {"name": name}
    description = tool.get("description")
    if isinstance(description, str):
        found["description"] = description
    if isinstance(tool.get("strict"), bool):
        found["strict"] = tool["strict"]
    schema = next((tool[key] for key in _PARAMETERS if isinstance(tool.get(key), dict)), None)
    if schema is None and isinstance(tool.get("properties"), dict):
        schema = {key: tool[key] for key in ("type", "properties", "required", "$defs") if key in tool}
    if schema is not None:
        json_schema = schema.get("json") if schema.keys() == {"json"} else None
        found["parameters"] = json_schema if isinstance(json_schema, dict) else schema
    elif isinstance(tool.get("parameter_definitions"), dict):  # Cohere's
        found["parameters"] = {"type": "object", "properties": tool["parameter_definitions"]}
    return {"type": "function", "function": found}


def _built_in(tool: Block, provider: str) -> Block | None:
    """Return the definition of a tool that the provider runs itself: `{"type": ...}`, or Gemini's one key."""
    kind = tool.get("type") if "type" in tool else next(iter(tool), None) if len(tool) == 1 else None
    if not isinstance(kind, str):
        return None
    known = next((ours for theirs, ours in _BUILT_IN if kind.startswith(theirs)), None)
    if known is None:
        return None
    config = tool.get(kind) if "type" not in tool else {key: tool[key] for key in tool if key != "type"}
    name = tool.get("name")
    description = tool.get("description")
    return {
        "id": kind,
        "name": name if isinstance(name, str) else kind,
        "description": description if isinstance(description, str) else "",
        "provider": provider,
        "type": known,
        "config": config if isinstance(config, dict) else {},
    }


def _unknown(tool: Json) -> Block:
    """Return a function definition that stands for a tool of unknown form and shows it whole."""
    name = tool.get("name", tool.get("type")) if isinstance(tool, dict) else None
    shown = name if isinstance(name, str) and name else "unknown"
    return {"type": "function", "function": {"name": shown, "description": dumps(tool).decode()}}
