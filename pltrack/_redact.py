"""Keep secrets, and content where it is not wanted, out of the journal: applied to every field, before disk."""

from __future__ import annotations

import queue
import re
import threading
from collections.abc import Callable
from typing import Any

import orjson

from ._plain import dumps
from ._settings import Redact

MASK = "[redacted]"
_TIME_LIMIT = 2.0

# What secrets look like: specific prefixes only, so that `max_tokens` or an author's name is never hit.
_SECRETS = re.compile(
    r"""
    -----BEGIN[ A-Z]*PRIVATE\ KEY-----.*?(?:-----END[ A-Z]*PRIVATE\ KEY-----|\Z)
  | \b(?:sk|pk|rk)[-_](?:ant-|proj-|live_|test_|or-|lf-)?[A-Za-z0-9_-]{16,}
  | \bpl_[A-Za-z0-9]{16,}
  | \blsv2_[a-z]{2}_[A-Za-z0-9_]{16,}
  | \bgh[pousr]_[A-Za-z0-9]{20,}
  | \bgithub_pat_[A-Za-z0-9_]{20,}
  | \bglpat-[A-Za-z0-9_-]{16,}
  | \bhf_[A-Za-z0-9]{20,}
  | \bxox[abeoprs]-[A-Za-z0-9-]{10,}
  | \bAIza[A-Za-z0-9_-]{30,}
  | \b(?:AKIA|ASIA)[A-Z0-9]{16}\b
  | \beyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,}
  | (?<=[Bb]earer\ )[A-Za-z0-9._~+/=-]{16,}
  | (?<=://)[^\s/:@]+:[^\s/:@]+(?=@)
    """,
    re.VERBOSE | re.DOTALL,
)
# Every pattern above contains one of these: a record without any of them is passed with a few scans of its memory.
_SIGNS = (
    b"@", b"-----BEGIN", b"pl_", b"lsv2_", b"github_pat_", b"glpat-", b"hf_", b"xox", b"AIza", b"AKIA", b"ASIA",
    b"eyJ", b"earer ", b"gho_", b"ghu_",
)  # fmt: skip
# Of the others several are one after this: sk- sk_ pk- pk_ rk- rk_, and ghp_ ghr_ ghs_.
_SAME = bytes.maketrans(b"pr-", b"ss_")
_SAME_SIGNS = (b"sk_", b"ghs_")
_CONTENT = ("input", "output", "prompt_input_variables")
_PLAIN_KINDS = (int, float, bool, type(None))


class Redactor:
    """Applies one redaction setting: built-in patterns (True), none (False), or the user's own function.

    Fails closed: a function that raises, hangs or returns anything but text or None costs the record its
    texts, never the record, and is counted through `on_failure`.
    """

    def __init__(self, setting: bool | Redact, on_failure: Callable[[BaseException], None]) -> None:
        self._setting = setting
        self._on_failure = on_failure
        self._own = _Bounded() if callable(setting) else None

    def clean(self, body: dict[str, Any], capture: str) -> bytes:
        """Return the JSON of `body` as it may be stored."""
        if capture == "metadata":
            body = without_content(body)
        encoded = dumps(body)
        if self._setting is False:
            return encoded
        if _may_hold_secrets(encoded):
            encoded = dumps(_mapped(orjson.loads(encoded), lambda text, _: _SECRETS.sub(MASK, text)))
        if self._own is None:
            return encoded
        return self._by_user(encoded)

    def _by_user(self, encoded: bytes) -> bytes:
        assert self._own is not None
        assert callable(self._setting)
        function = self._setting
        try:
            return dumps(self._own.run(lambda: _mapped(orjson.loads(encoded), lambda t, f: _text_of(function(t, f)))))
        except Exception as error:  # noqa: BLE001 -- the user's function may raise anything: fail closed
            self._on_failure(error)
            return dumps(_without_texts(orjson.loads(encoded)))


def _may_hold_secrets(encoded: bytes) -> bool:
    for sign in _SIGNS:
        if sign in encoded:
            return True
    alike = encoded.translate(_SAME)
    return _SAME_SIGNS[0] in alike or _SAME_SIGNS[1] in alike


def without_content(body: dict[str, Any]) -> dict[str, Any]:
    """Return `body` with everything that was said in the call taken out; counts, times, names and tags stay."""
    kept = dict(body)
    for side in ("input", "output"):
        if side in kept:
            kept[side] = _hollow(kept[side])
    if "prompt_input_variables" in kept:
        kept["prompt_input_variables"] = {}
    if kept.get("error_message"):
        kept["error_message"] = str(kept["error_message"]).split(":", 1)[0][:200]
    if "parameters" in kept:
        kept["parameters"] = {
            key: value for key, value in kept["parameters"].items() if isinstance(value, _PLAIN_KINDS)
        }
    return kept


def _hollow(prompt: dict[str, Any]) -> dict[str, Any]:
    if prompt.get("type") == "completion":
        return {"type": "completion", "content": []}
    kept = ("role", "name", "tool_call_id")
    said = [
        {key: message[key] for key in kept if key in message} | {"content": []}
        for message in prompt.get("messages", ())
    ]
    return {"type": "chat", "messages": said, "input_variables": []}


# Names that the schema fixes: changing them would make the record invalid without hiding anything.
_FIXED = frozenset({"type", "role", "status", "error_type", "request_start_time", "request_end_time", "format"})
# Ids by which records are found again; made by us or by LangChain, never by people.
_OURS = frozenset({"pltrack_id", "session_id", "_langchain_run_id", "_langchain_parent_run_id"})


def _mapped(value: Any, change: Callable[[str, str], str], field: str = "", key: str = "") -> Any:
    if isinstance(value, str):
        return value if key in _FIXED or (key in _OURS and field == "metadata") else change(value, field)
    if isinstance(value, list):
        return [_mapped(each, change, field, key) for each in value]
    if isinstance(value, dict):
        return {name: _mapped(each, change, field or name, name) for name, each in value.items()}
    return value


def _without_texts(body: dict[str, Any]) -> Any:
    keep = {"provider", "model", "function_name", "prompt_name", "tags"}
    emptied = {**without_content(body), "tags": []} if "tags" in body else without_content(body)
    return _mapped(emptied, lambda text, field: text if field in keep else "")


def _text_of(answer: str | None) -> str:
    if answer is None:
        return ""
    if not isinstance(answer, str):
        raise TypeError(f"redact returned {type(answer).__name__}, not str or None")
    return answer


class _Bounded:
    """Runs functions one after the other on a thread that is left behind when one of them hangs."""

    def __init__(self) -> None:
        self._jobs: queue.SimpleQueue[Any] | None = None

    def run(self, function: Callable[[], Any]) -> Any:
        """Return what `function` returns, raise what it raises, or TimeoutError when it takes too long."""
        if self._jobs is None:
            self._jobs = queue.SimpleQueue()
            threading.Thread(target=_serve, args=(self._jobs,), name="pltrack-redact", daemon=True).start()
        answer: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._jobs.put((function, answer))
        try:
            done, value = answer.get(timeout=_TIME_LIMIT)
        except queue.Empty:
            self._jobs = None
            raise TimeoutError(f"redact took longer than {_TIME_LIMIT:g} s") from None
        if not done:
            raise value
        return value


def _serve(jobs: queue.SimpleQueue[Any]) -> None:
    while True:
        function, answer = jobs.get()
        try:
            answer.put((True, function()))
        except BaseException as error:  # noqa: BLE001 -- handed to the caller, who fails closed
            answer.put((False, error))
