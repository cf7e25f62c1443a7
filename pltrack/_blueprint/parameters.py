"""What a model was asked with: the parameters that may be told, its provider and its name."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, cast

from .._plain import FIXED, Frozen, Json, attempt, dumps, plain, text
from .media import Block
from .tools import SECRET, tool_choice_of, tools_of

# Nothing else leaves: headers, keys, `model_kwargs` and `extra_body` travel in the same mapping.
_TOLD = """
    temperature temp top_p top_k top_a min_p typical_p tfs_z mirostat mirostat_eta mirostat_tau
    max_tokens max_completion_tokens max_output_tokens max_new_tokens max_tokens_to_sample n_predict
    num_predict max_length min_length min_tokens num_ctx n_ctx context_length num_beams do_sample
    stop stop_sequences n best_of candidate_count seed random_seed echo suffix
    frequency_penalty presence_penalty repetition_penalty repeat_penalty repeat_last_n length_penalty
    logit_bias logprobs top_logprobs response_logprobs
    response_format response_mime_type response_schema response_modalities text verbosity format json_mode
    reasoning reasoning_effort effort thinking thinking_config thinking_budget thinking_level include_thoughts
    think include truncation context_management store background
    tools tool_choice parallel_tool_calls functions function_call
    service_tier modalities audio prediction web_search_options safe_prompt safety_settings
    stream streaming use_responses_api keep_alive
"""
_ALLOWED = frozenset(_TOLD.split())
_LIMITS = (
    "max_tokens",
    "max_completion_tokens",
    "max_output_tokens",
    "max_new_tokens",
    "num_predict",
    "n_predict",
)
_NAMES = ("model", "model_name", "model_id", "deployment_name", "azure_deployment", "repo_id", "engine")
_WEIGHTS = re.compile(r".*[/\\]([^/\\]+\.(?:gguf|ggml|bin|safetensors|pt|onnx))")

_PROVIDERS = {
    "azure": "openai.azure",
    "azure_openai": "openai.azure",
    "azure-openai": "openai.azure",
    "azureopenai": "openai.azure",
    "google_genai": "google",
    "google-generativeai": "google",
    "googlegenerativeai": "google",
    "gemini": "google",
    "google_vertexai": "vertexai",
    "google_anthropic_vertex": "vertexai",
    "mistralai": "mistral",
    "amazon_bedrock": "amazon.bedrock",
    "amazon_bedrock_converse": "amazon.bedrock",
    "bedrock": "amazon.bedrock",
    "bedrock_converse": "amazon.bedrock",
    "bedrockconverse": "amazon.bedrock",
    "aws": "amazon.bedrock",
    "huggingface_hub": "huggingface",
    "huggingfacehub": "huggingface",
    "huggingface_endpoint": "huggingface",
    "huggingfacepipeline": "huggingface",
}


def snap_parameters(invocation_params: object) -> Frozen:
    """Return a snapshot of what may leave the process, and of what names the model. For the app's thread."""
    try:
        found = {
            name: value
            for name, value in invocation_params.items()  # type: ignore[attr-defined]
            if name in _KEPT and value is not None
        }
        return found if FIXED.issuperset(map(type, found.values())) else _snapshot(found)
    except Exception:  # noqa: BLE001 -- no mapping, or one of unknown make
        return {}


def snap_metadata(metadata: object) -> dict[Any, Any]:
    """Return a snapshot of the scalars in LangChain's metadata, all that is read of it. For the app's thread."""
    try:
        found = {name: value for name, value in metadata.items() if issubclass(type(value), _SCALAR)}  # type: ignore[attr-defined]
        if "ls_stop" in metadata:  # type: ignore[operator]
            found["ls_stop"] = plain(metadata["ls_stop"])  # type: ignore[index]
        return found
    except Exception:  # noqa: BLE001 -- no mapping, or one of unknown make
        return {}


def parameters(
    given: Mapping[str, Any], about: Mapping[str, Any], provider: str = "unknown"
) -> tuple[Block, list[Block] | None, Json]:
    """Return the parameters of a call, and its tools and tool choice in the blueprint's form; None without.

    Args: given -- what `snap_parameters` kept; about -- LangChain's metadata of the call.
    """
    found: Block = {name: value for name, value in given.items() if name in _ALLOWED}
    if found.get("stream") is False:  # LangChain says so of streams, too
        del found["stream"]
    if (value := about.get("ls_temperature")) is not None:
        found["temp" if "temp" in found else "temperature"] = value
    if (value := about.get("ls_max_tokens")) is not None:
        found[next((name for name in _LIMITS if name in found), "max_tokens")] = value
    if value := about.get("ls_stop"):
        found["stop_sequences" if "stop_sequences" in found else "stop"] = value
    offered = [*_listed(found.pop("tools", None)), *_listed(found.pop("functions", None))]
    choice = found.pop("tool_choice", None)
    legacy = found.pop("function_call", None)
    return (
        found,
        tools_of(offered, provider) or None,
        tool_choice_of(choice if choice is not None else legacy),
    )


_ASKED = ("_type", *_NAMES)
_SCALAR = (str, int, float)
_KEPT = _ALLOWED.union(_ASKED)
_KNOWN_MOST = 1_000
_known: dict[Any, tuple[str, str]] = {}


def model_of(invocation_params: object, metadata: object, serialized_name: str | None = None) -> tuple[str, str]:
    """Return provider and model as PromptLayer names them; "unknown" where LangChain does not say."""
    return attempt(lambda: _model_of(invocation_params, metadata, serialized_name), ("unknown", "unknown"))


def api_type(provider: str, kind: str, provider_id: str | None = None) -> str | None:
    """Return which of OpenAI's interfaces answered, None for other providers and completion models."""
    if provider not in ("openai", "openai.azure") or kind != "chat":
        return None
    return "responses" if (provider_id or "").startswith("resp_") else "chat-completions"


def _snapshot(found: dict[str, Any]) -> bytes:
    for name in ("response_format", "response_schema", "text", "format"):
        if name in found and isinstance(found[name], type):
            found[name] = _schema(found[name])
    if "tools" in found:
        found["tools"] = [_public(tool) for tool in _listed(found["tools"])]
    return dumps(found)


def _schema(model: type) -> Json:
    """Return a pydantic class as a provider is told of it; the class's name where it has no schema."""
    schema = attempt(lambda: model.model_json_schema(), None)  # type: ignore[attr-defined]
    if not isinstance(schema, dict):
        return text(model)
    return {"type": "json_schema", "json_schema": {"name": model.__name__, "schema": schema}}


def _public(tool: object) -> object:
    """Return a tool that a provider runs without the credentials it needs there; functions have none."""
    kind = type(tool)  # not `isinstance`: it asks the tool itself
    if issubclass(kind, type):
        return _schema(cast("type", tool))
    if not issubclass(kind, dict) or (own := cast("dict[Any, Any]", tool)).get("type") in (None, "function", "custom"):
        return tool
    return {name: "**********" if SECRET.search(str(name)) else value for name, value in own.items()}


def _model_of(given: object, about: object, serialized_name: str | None) -> tuple[str, str]:
    given = given if isinstance(given, Mapping) else {}
    about = about if isinstance(about, Mapping) else {}
    # A program asks a few models again and again, on its own thread.
    asked = (serialized_name, about.get("ls_provider"), about.get("ls_model_name"), *map(given.get, _ASKED))
    known = _known.get(asked)
    if known is None:
        known = _worked_out(given, about, serialized_name)
        if len(_known) < _KNOWN_MOST:
            _known[asked] = known
    return known


def _worked_out(given: Mapping[str, Any], about: Mapping[str, Any], serialized_name: str | None) -> tuple[str, str]:
    kind = given.get("_type")
    short = kind.removesuffix("-chat").removeprefix("chat-") if isinstance(kind, str) else ""
    of_class = (serialized_name or "").removeprefix("Chat").lower()
    stated: str = next((text(one) for one in (about.get("ls_provider"), short, of_class) if one), "unknown")
    model = _model_name(given, about) or serialized_name or "unknown"
    return _PROVIDERS.get(stated.lower(), stated), model


def _model_name(given: Mapping[str, Any], about: Mapping[str, Any]) -> str | None:
    """Return the model that was asked for; of a local file of weights only the file's name."""
    for value in (*(given.get(name) for name in _NAMES), about.get("ls_model_name")):
        if isinstance(value, str) and value:
            weights = _WEIGHTS.fullmatch(value)
            return text(weights[1] if weights else value)
    return None


def _listed(value: object) -> list[Any]:
    if isinstance(value, list | tuple):
        return list(value)
    return [] if value is None else [value]
