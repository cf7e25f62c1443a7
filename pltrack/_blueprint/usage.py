"""How many tokens a call took, in any provider's spelling, and what they cost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

from .._plain import attempt, peek


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """Tokens of one call; None where the provider did not say. Input and output include their parts."""

    input_tokens: int | None = None
    output_tokens: int | None = None
    cached_tokens: int | None = None
    cache_write_tokens: int | None = None
    reasoning_tokens: int | None = None
    audio_input_tokens: int | None = None
    audio_output_tokens: int | None = None
    tier: str | None = None  # OpenAI's service tier, where its prices are not the standard ones


_TIERS = ("priority", "flex")
_INPUT = ("input_tokens", "prompt_tokens", "prompt_token_count", "inputTokens", "promptTokenCount")
_INPUT_2 = ("input_token_count", "inputTokenCount", "prompt_eval_count")
_OUTPUT = (
    "output_tokens",
    "completion_tokens",
    "candidates_token_count",
    "outputTokens",
    "candidatesTokenCount",
)
_OUTPUT_2 = (
    "output_token_count",
    "outputTokenCount",
    "eval_count",
    "generated_tokens",
    "generated_token_count",
)
_INPUT_PARTS = ("input_token_details", "prompt_tokens_details", "input_tokens_details")
_OUTPUT_PARTS = ("output_token_details", "completion_tokens_details", "output_tokens_details")
# Anthropic and Bedrock count these beside the input, everybody else (and LangChain) within it.
_BESIDE_READ = ("cache_read_input_tokens", "cacheReadInputTokens", "cacheReadInputTokenCount")
_BESIDE_WRITE = ("cache_creation_input_tokens", "cacheWriteInputTokens", "cacheWriteInputTokenCount")
_CACHED = (
    "cached_tokens",
    "cached_content_token_count",
    "cachedContentTokenCount",
    "prompt_cache_hit_tokens",
)
# Gemini counts its thoughts beside the candidates.
_THOUGHTS = ("thoughts_token_count", "thoughtsTokenCount")
_OTHERS = frozenset((*_BESIDE_READ, *_BESIDE_WRITE, *_CACHED, *_THOUGHTS))
_WRAPPERS = ("token_usage", "usage", "usage_metadata", "tokenUsage", "amazon-bedrock-invocationMetrics")

_PRICED_AS = {
    "openai.azure": "azure",
    "vertexai": "google",
    "amazon.bedrock": "aws",
    "anthropic.bedrock": "aws",
    "xai": "x-ai",
}
_SOUND_COSTS_MORE = ("openai", "azure")


def find_usage(generations: object, llm_output: object, batch_size: int = 1) -> Usage | None:
    """Return the usage of the run with these candidates (`generations[0]`), None where nobody told any.

    Every candidate repeats the usage of the whole call, so one of them is asked. Completion models put the
    total of a batch into the first run's `llm_output`: with `batch_size` above 1 that is nobody's usage.
    """
    candidates = list(generations) if isinstance(generations, list | tuple) else []
    messages = [message for one in candidates if (message := peek(one, "message")) is not None]
    for message in messages:
        if found := read_usage(peek(message, "usage_metadata")):
            return found
    if (messages or batch_size <= 1) and (found := _nested(llm_output)):
        return found
    for holder in (*(peek(one, "response_metadata") for one in messages), *_infos(candidates)):
        if found := _nested(holder) or read_usage(holder):
            return found
    return None


def read_usage(raw: object) -> Usage | None:
    """Return the usage in one provider's mapping, None where it holds no token counts."""
    if not isinstance(raw, dict) or not raw:
        return None
    inputs, outputs = _count(raw, *_INPUT, *_INPUT_2), _count(raw, *_OUTPUT, *_OUTPUT_2)
    others = {} if _OTHERS.isdisjoint(raw) else raw
    read, written = _count(others, *_BESIDE_READ), _count(others, *_BESIDE_WRITE)
    thoughts = _count(others, *_THOUGHTS)
    if inputs is not None:
        inputs += (read or 0) + (written or 0)
    if outputs is not None or thoughts is not None:
        outputs = (outputs or 0) + (thoughts or 0)
    if inputs is None and outputs is None:
        return None
    inside, outside = _parts(raw, _INPUT_PARTS), _parts(raw, _OUTPUT_PARTS)
    return Usage(
        input_tokens=inputs,
        output_tokens=outputs,
        cached_tokens=_first(_count(inside, *_in_tiers("cache_read"), "cached_tokens"), read, _count(others, *_CACHED)),
        cache_write_tokens=_first(_written(inside), written),
        reasoning_tokens=_first(_count(outside, *_in_tiers("reasoning"), "reasoning_tokens"), thoughts),
        audio_input_tokens=_count(inside, "audio", "audio_tokens"),
        audio_output_tokens=_count(outside, "audio", "audio_tokens"),
        tier=next((tier for tier in _TIERS if tier in inside or tier in outside), None),
    )


def price(provider: str, model: str, usage: Usage, at: datetime | None = None) -> float | None:
    """Return the US dollars the tokens cost at that time; None for an unknown model. Asks no network."""
    if usage.input_tokens is None and usage.output_tokens is None:
        return None
    return attempt(lambda: _price(provider, model, usage, at), None)


def _price(provider: str, model: str, usage: Usage, at: datetime | None) -> float | None:
    known = _priced(_PRICED_AS.get(provider, provider), model)
    if known is None:
        return None
    where, which = known
    from genai_prices import Usage as Tokens

    tokens = Tokens(
        input_tokens=usage.input_tokens or 0,
        output_tokens=usage.output_tokens or 0,
        cache_read_tokens=usage.cached_tokens or None,
        cache_write_tokens=usage.cache_write_tokens or None,
        input_audio_tokens=usage.audio_input_tokens or None,
        output_audio_tokens=usage.audio_output_tokens or None,
    )
    moment = at or datetime.now(UTC)
    if moment.tzinfo is None:
        moment = moment.astimezone()
    context = None if usage.tier is None else {"service_tier": usage.tier}
    if context is not None and not _has_prices(which, context, moment):
        return None  # the standard price would be a wrong one
    found = which.calc_price(tokens, where, genai_request_timestamp=moment, price_context=context)
    for count, unit in (
        (usage.audio_input_tokens, "input_audio_mtok"),
        (usage.audio_output_tokens, "output_audio_mtok"),
    ):
        if count and where.id in _SOUND_COSTS_MORE and getattr(found.model_price, unit, None) is None:
            return None  # the list would take sound for text
    return float(found.total_price)


def _has_prices(model: Any, context: dict[str, str], moment: datetime) -> bool:
    return any(
        variant.when == context and (variant.constraint is None or variant.constraint.active(moment))
        for variant in model.price_variants or ()
    )


@lru_cache(maxsize=1024)
def _priced(provider: str, model: str) -> tuple[Any, Any] | None:
    """Return the price list's provider and model; matching takes longer than pricing, so each pair once."""
    from genai_prices import data_snapshot

    try:
        return data_snapshot.get_snapshot().find_provider_model(model, None, provider, None)
    except LookupError:
        return None


def _nested(holder: object) -> Usage | None:
    """Return the usage that a mapping holds under one of its usual names."""
    if not isinstance(holder, dict) or not holder:
        return None
    for name in _WRAPPERS:
        if found := read_usage(holder.get(name)):
            return found
    return None


def _infos(candidates: Sequence[object]) -> list[Any]:
    return [peek(one, "generation_info") for one in candidates]


def _parts(raw: Mapping[str, Any], names: Sequence[str]) -> Mapping[str, Any]:
    for name in names:
        if isinstance(found := raw.get(name), dict):
            return found
    return {}


def _written(inside: Mapping[str, Any]) -> int | None:
    """Return the tokens written to a cache; LangChain splits Anthropic's by life time, the sum left 0."""
    total = _count(inside, *_in_tiers("cache_creation"), "cache_write_tokens")
    split = [_count(inside, f"ephemeral_{life}_input_tokens") for life in ("5m", "1h")]
    known = [one for one in split if one is not None]
    return sum(known) if known and not total else total


def _in_tiers(name: str) -> tuple[str, ...]:
    """Return the names under which LangChain tells a part of the tokens: it puts OpenAI's service tier before them."""
    return (name, *(f"{tier}_{name}" for tier in _TIERS))


def _count(raw: Mapping[str, Any], *names: str) -> int | None:
    """Return the first of the fields that is a count of tokens."""
    if not raw:
        return None
    for name in names:
        value = raw.get(name)
        if value is None:
            continue
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**53:
            return int(value)
    return None


def _first(*values: int | None) -> int | None:
    return next((value for value in values if value is not None), None)
