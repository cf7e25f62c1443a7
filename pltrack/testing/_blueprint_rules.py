"""PromptLayer's rules for a Prompt Blueprint: `input` and `output` of a request, the body of a template.

Written by hand from PromptLayer's OpenAPI description. Stricter than its text in one thing, as a server that
picks the kind by its discriminator is: `type` and `role` must be there.
"""

from ._shapes import (
    Check,
    boolean,
    either,
    integer,
    many,
    mapping,
    maybe,
    one_of,
    record,
    tagged,
    text,
)

TEXT = text()
TEXT_OR_NULL = maybe(TEXT)
INTEGER = integer()
OBJECT = mapping()
NAMES = many(TEXT)
FAILURE = either(TEXT_OR_NULL, OBJECT)

_SPAN = {"start_index": INTEGER, "end_index": INTEGER}
ANNOTATION = tagged(
    "type",
    {
        "url_citation": record(
            {"title": TEXT, "url": TEXT, **_SPAN},
            {"cited_text": TEXT_OR_NULL, "encrypted_index": TEXT_OR_NULL},
        ),
        "file_citation": record({"index": INTEGER, "file_id": TEXT, "filename": TEXT}),
        "map_citation": record(
            {"title": TEXT, "url": TEXT, **_SPAN}, {"place_id": TEXT_OR_NULL, "cited_text": TEXT_OR_NULL}
        ),
        "container_file_citation": record(
            {"container_id": TEXT},
            {
                "start_index": maybe(INTEGER),
                "end_index": maybe(INTEGER),
                "filename": TEXT_OR_NULL,
                "file_id": TEXT_OR_NULL,
            },
        ),
    },
)
MEDIA = record(
    {},
    {
        "title": TEXT,
        "type": TEXT_OR_NULL,
        "url": TEXT_OR_NULL,
        "format": one_of("base64", "url", "neither"),
    },
)
WEB_RESULT = record(
    {},
    {
        "type": one_of("web_search_result"),
        "url": TEXT,
        "title": TEXT,
        "encrypted_content": TEXT,
        "page_age": TEXT_OR_NULL,
    },
)
_TOOL_OUTPUT = record({"tool_use_id": TEXT}, {"content": OBJECT})
_CALL = {"id": TEXT_OR_NULL, "call_id": TEXT_OR_NULL, "status": TEXT_OR_NULL}

BLOCK = tagged(
    "type",
    {
        "text": record(
            {"text": TEXT},
            {
                "id": TEXT_OR_NULL,
                "annotations": maybe(many(ANNOTATION)),
                "thought_signature": TEXT_OR_NULL,
            },
        ),
        "thinking": record({"thinking": TEXT}, {"signature": TEXT_OR_NULL, "id": TEXT_OR_NULL}),
        "code": record({"code": TEXT}, {"id": TEXT_OR_NULL, "container_id": TEXT_OR_NULL}),
        "image_url": record(
            {"image_url": record({"url": TEXT}, {"detail": TEXT_OR_NULL})},
            {"image_variable": TEXT_OR_NULL},
        ),
        "media": record({"media": MEDIA}),
        "media_variable": record({"name": TEXT}),
        "output_media": record(
            {"url": TEXT},
            {
                "id": TEXT_OR_NULL,
                "mime_type": TEXT,
                "media_type": one_of("image", "video", "audio"),
                "provider_metadata": maybe(OBJECT),
            },
        ),
        "server_tool_use": record({"id": TEXT, "name": TEXT}, {"input": OBJECT}),
        "web_search_tool_result": record({"tool_use_id": TEXT}, {"content": many(WEB_RESULT)}),
        "code_execution_result": record({"output": TEXT}, {"outcome": TEXT}),
        "bash_code_execution_tool_result": _TOOL_OUTPUT,
        "text_editor_code_execution_tool_result": _TOOL_OUTPUT,
        "mcp_list_tools": record(
            {}, {"id": TEXT_OR_NULL, "server_label": TEXT, "tools": many(OBJECT), "error": FAILURE}
        ),
        "mcp_call": record(
            {},
            {
                "id": TEXT_OR_NULL,
                "name": TEXT,
                "server_label": TEXT,
                "arguments": TEXT,
                "output": TEXT_OR_NULL,
                "error": FAILURE,
                "approval_request_id": TEXT_OR_NULL,
            },
        ),
        "mcp_approval_request": record({}, {"id": TEXT_OR_NULL, "name": TEXT, "arguments": TEXT, "server_label": TEXT}),
        "mcp_approval_response": record({"approval_request_id": TEXT, "approve": boolean}),
        "shell_call": record({}, {**_CALL, "action": OBJECT}),
        "shell_call_output": record({}, {**_CALL, "output": many(OBJECT)}),
        "apply_patch_call": record({}, {**_CALL, "operation": OBJECT}),
        "apply_patch_call_output": record({}, {**_CALL, "output": TEXT_OR_NULL}),
    },
)
BLOCKS = many(BLOCK)

FUNCTION_CALL = record({"name": TEXT, "arguments": TEXT})
TOOL_CALL = record({"id": TEXT, "function": FUNCTION_CALL}, {"type": one_of("function"), "tool_id": TEXT_OR_NULL})
FORMAT = one_of("f-string", "jinja2")
_COMMON: dict[str, Check] = {"input_variables": NAMES, "template_format": FORMAT}
_SPOKEN = record({"content": BLOCKS}, {**_COMMON, "name": TEXT_OR_NULL})

MESSAGE = tagged(
    "role",
    {
        "system": _SPOKEN,
        "developer": _SPOKEN,
        "user": _SPOKEN,
        "assistant": record(
            {},
            {
                **_COMMON,
                "content": maybe(BLOCKS),
                "name": TEXT_OR_NULL,
                "function_call": maybe(FUNCTION_CALL),
                "tool_calls": maybe(many(TOOL_CALL)),
            },
        ),
        "function": record({"name": TEXT}, {**_COMMON, "content": maybe(BLOCKS)}),
        "tool": record({"content": BLOCKS, "tool_call_id": TEXT}, {**_COMMON, "name": TEXT_OR_NULL}),
        "placeholder": record({"name": TEXT}, {**_COMMON, "content": maybe(BLOCKS), "raw_request_display_role": TEXT}),
    },
)

FUNCTION = record({"name": TEXT}, {"description": TEXT, "strict": boolean, "parameters": OBJECT})
_BUILT_IN = record({"id": TEXT, "name": TEXT, "description": TEXT, "provider": TEXT, "config": OBJECT})
BUILT_IN_TOOLS = (
    "web_search",
    "file_search",
    "code_interpreter",
    "image_generation",
    "google_maps",
    "url_context",
    "mcp",
    "bash",
    "shell",
    "apply_patch",
    "text_editor",
)
TOOL = tagged("type", {"function": record({"function": FUNCTION}), **dict.fromkeys(BUILT_IN_TOOLS, _BUILT_IN)})
NAMED = record({"name": TEXT})

BLUEPRINT = tagged(
    "type",
    {
        "chat": record(
            {"messages": many(MESSAGE)},
            {
                "functions": maybe(many(FUNCTION)),
                "tools": maybe(many(TOOL)),
                "function_call": maybe(either(TEXT, NAMED)),
                "tool_choice": maybe(either(TEXT, record({"function": NAMED}, {"type": one_of("function")}))),
                "input_variables": NAMES,
            },
        ),
        "completion": record({"content": BLOCKS}, _COMMON),
    },
)
MODEL = record(
    {"provider": TEXT, "name": TEXT},
    {
        "model_config_display_name": maybe(text(most=255)),
        "base_model": maybe(text(most=100)),
        "parameters": OBJECT,
        "display_params": OBJECT,
        "api_type": TEXT_OR_NULL,
    },
)
METADATA = maybe(record({}, {"model": maybe(MODEL)}))
