"""Errors and odd endings of any provider -> PromptLayer's status, error type and message."""

from __future__ import annotations

import re

from .._plain import Json, attempt, bases, clean, peek

Fault = tuple[str, str | None, str]

_LONGEST = 4096  # PromptLayer takes 1024: cut so far once secrets are out, half of one is not known for what it is
_INTERRUPTS = frozenset({"GraphInterrupt", "GraphBubbleUp", "NodeInterrupt", "ParentCommand"})
_GIVEN_UP = frozenset({"GeneratorExit", "CancelledError", "KeyboardInterrupt"})
_CUT_SHORT = frozenset({"LengthFinishReasonError", "ContentFilterFinishReasonError", "IncompleteRead"})
_PACKAGES = """
    openai anthropic google mistralai boto boto3 botocore cohere groq fireworks together huggingface_hub
    ollama replicate xai_sdk ibm_watsonx_ai langchain_google_genai langchain_google_vertexai langchain_openai
    langchain_anthropic langchain_aws grpc httpx httpcore requests urllib3 aiohttp
"""
_PROVIDERS = frozenset(_PACKAGES.split())
_BY_STATUS = {
    402: "PROVIDER_QUOTA_LIMIT",
    429: "PROVIDER_RATE_LIMIT",
    401: "PROVIDER_AUTH_ERROR",
    403: "PROVIDER_AUTH_ERROR",
    408: "PROVIDER_TIMEOUT",
    504: "PROVIDER_TIMEOUT",
}
_QUOTA = re.compile(r"insufficient_quota|exceeded your current quota|quota.?exceeded|credit balance is too low")
_BY_NAME = (
    (re.compile(r"RateLimit|TooManyRequests|ResourceExhausted|Throttl"), "PROVIDER_RATE_LIMIT"),
    (re.compile(r"Timeout|DeadlineExceeded|TimedOut"), "PROVIDER_TIMEOUT"),
    (
        re.compile(r"Authentication|PermissionDenied|Unauthorized|Unauthenticated|Forbidden|AccessDenied"),
        "PROVIDER_AUTH_ERROR",
    ),
)
# Refused, cut off or stopped before the model was done, whatever the provider calls it.
_PARTIAL = re.compile(
    r"length|max_?(output_?|new_?|completion_?)?tokens|content_?filter|safety|recitation|blocklist|prohibited|spii|"
    r"guardrail|refusal|incomplete|context_window|malformed",
    re.IGNORECASE,
)


def fault(error: BaseException) -> Fault:
    """Return status, error type and a message of at most 4096 characters for a failed call; never raise."""
    names = [base.__name__ for base in bases(type(error))]
    if _INTERRUPTS.intersection(names):
        return "SUCCESS", None, ""
    message = _message(error)
    if _GIVEN_UP.intersection(names):
        why = "abandoned by its consumer" if "GeneratorExit" in names else "cancelled"
        return "WARNING", "PROVIDER_PARTIAL_RESPONSE", clean(f"{message}: the call was {why}")[:_LONGEST]
    if _CUT_SHORT.intersection(names):
        return "WARNING", "PROVIDER_PARTIAL_RESPONSE", message
    return "ERROR", _error_type(error, message) or "UNKNOWN_ERROR", message


def finish_fault(finish_reason: Json, *, expected: bool = False) -> Fault | None:
    """Return what to say about an answer that is not whole, None where the reason is an ordinary one.

    Args:
        finish_reason: as the provider told it; None where it told none.
        expected: whether an answer that is whole tells one.
    """
    if finish_reason is None and expected:
        return "WARNING", "PROVIDER_PARTIAL_RESPONSE", "the stream ended without a finish reason: it may have been cut"
    if not isinstance(finish_reason, str) or not _PARTIAL.search(finish_reason):
        return None
    return "WARNING", "PROVIDER_PARTIAL_RESPONSE", clean(f"finish_reason: {finish_reason}")[:_LONGEST]


def _error_type(error: BaseException, message: str) -> str | None:
    """Return the type of the error, or of what caused it where the error itself says nothing."""
    seen: BaseException | None = error
    for _ in range(5):  # a chain of causes may be a ring
        if seen is None:
            break
        found = _own_type(seen, message)
        if found is not None:
            return found
        cause = peek(seen, "__cause__")
        seen = cause if isinstance(cause, BaseException) else None
    return None


def _own_type(error: BaseException, message: str) -> str | None:
    status, code = _status(error)
    kinds = bases(type(error))
    from_provider = any(
        str(base.__module__).partition(".")[0] in _PROVIDERS or base.__name__ == "ModelError" for base in kinds
    )
    is_known = from_provider or status is not None
    if is_known and _QUOTA.search(f"{message} {code}".lower()):
        return "PROVIDER_QUOTA_LIMIT"
    if status in _BY_STATUS:
        return _BY_STATUS[status]
    for pattern, found in _BY_NAME:
        if any(pattern.search(base.__name__) for base in kinds) or pattern.search(code):
            return found
    return "PROVIDER_ERROR" if is_known else None


def _status(error: BaseException) -> tuple[int | None, str]:
    """Return the HTTP status that an error tells of, and the provider's words for its kind."""
    response = peek(error, "response")
    code = ""
    if isinstance(response, dict):
        details, answer = response.get("Error"), response.get("ResponseMetadata")
        code = str(details.get("Code")) if isinstance(details, dict) else ""
        statuses = [answer.get("HTTPStatusCode")] if isinstance(answer, dict) else []
    else:
        code = " ".join(each for name in ("code", "type") if isinstance(each := peek(error, name), str))
        names = ("status_code", "code", "status", "http_status")
        statuses = [peek(error, name) for name in names] + [peek(response, "status_code")]
    for status in statuses:
        if isinstance(status, int) and not isinstance(status, bool) and 400 <= status < 600:
            return int(status), code
    return None, code


def _message(error: BaseException) -> str:
    name = type(error).__name__
    words = attempt(lambda: str(error), "<no text>")
    return clean(f"{name}: {words}" if words else name)[:_LONGEST]
