"""Keep secrets, and content where it is not wanted, out of the journal: applied to every field, before disk."""

from __future__ import annotations

import queue
import re
import threading
from collections.abc import Callable, Collection, Sequence
from functools import lru_cache
from itertools import chain
from operator import itemgetter
from typing import Any, NamedTuple, TypeVar

import orjson

from ._plain import dumps
from ._settings import Redact

MASK = "[redacted]"
_TIME_LIMIT = 2.0
_LEFT_MOST = 3  # threads that hang in the user's function; after so many it is not called until one comes back
T = TypeVar("T")

# Where a secret may begin: after no letter, digit or _ of ASCII (scripts without spaces are letters, too), and after an
# escape of JSON or of URLs, of which the last character is one.
_EDGE = r"(?:(?<![A-Za-z0-9_])|(?<=\\[bfnrt])|(?<=\\u[0-9a-fA-F]{4})|(?<=%[0-9a-fA-F]{2}))"
# Printable ASCII as JSON within a text may write it, except the quotation mark and the backslash.
_ESCAPED = re.compile(r"\\+u00(2[013-9a-fA-F]|[346][0-9a-fA-F]|5[0-9abdefABDEF]|7[0-9a-eA-E])")


class _Rule(NamedTuple):
    """Where one kind of secret may be, found with the speed of memory, and what it looks like there."""

    sign: str
    secret: re.Pattern[str]
    behind: int = 0  # the secret begins so many characters after the sign

    @property
    def end(self) -> bytes:
        """Return the last two bytes before the first `-` or `_` of the sign."""
        return self.sign.replace("-", "_").partition("_")[0][-2:].encode()

    def applied(self, text: str) -> str:
        """Return the text with these secrets masked.

        A pattern alone would hold up the program's threads: it is slow, and lets no other thread run until it is done.
        """
        parts: list[str] = []
        done, at = 0, text.find(self.sign)
        while at >= 0:
            found = self.secret.match(text, at + self.behind)
            if found is not None:
                parts += (text[done : found.start()], MASK)
                done = found.end()
            at = text.find(self.sign, max(done, at + 1))
        return "".join((*parts, text[done:])) if parts else text


def _keys(pattern: str, *signs: str) -> tuple[_Rule, ...]:
    secret = re.compile(_EDGE + pattern)
    return tuple(_Rule(sign, secret) for sign in signs)


# What secrets look like: specific prefixes only, so that `max_tokens` or an author's name is never hit.
_WITH_END = (
    *_keys("[spr]k[-_](?:ant-|proj-|live_|test_|or-|lf-)?[A-Za-z0-9_-]{16,}", "sk-", "sk_", "pk-", "pk_", "rk-", "rk_"),
    *_keys("(?:gsk|pcsk)_[A-Za-z0-9_]{16,}", "gsk_", "pcsk_"),
    *_keys("gh[pousr]_[A-Za-z0-9]{20,}", "ghp_", "gho_", "ghu_", "ghs_", "ghr_"),
    *_keys("github_pat_[A-Za-z0-9_]{20,}", "github_pat_"),
    *_keys("glpat-[A-Za-z0-9_-]{16,}", "glpat-"),
    *_keys("pl_[A-Za-z0-9]{16,}", "pl_"),
    *_keys("lsv2_[a-z]{2}_[A-Za-z0-9_]{16,}", "lsv2_"),
    *_keys("hf_[A-Za-z0-9]{20,}", "hf_"),
    *_keys("xox[abeoprs]-[A-Za-z0-9-]{10,}", *(f"xox{kind}-" for kind in "abeoprs")),
)
_LOGIN = re.compile(r"""[^\s/:@"'<>]*:[^\s/"'<>]+(?=@)""")
_BLOCK = re.compile(r"-----BEGIN[ A-Z]*PRIVATE\ KEY-----.*?(?:-----END[ A-Z]*PRIVATE\ KEY-----|\Z)", re.DOTALL)
_BEARER = re.compile(r"(?<=[Bb]earer )[A-Za-z0-9._~+/=-]{16,}")
# With what texts seldom have: to look for that first is a tenth of the work.
_WITHOUT_END = (
    (b"@", _Rule("://", _LOGIN, 3)),
    (b"B", _Rule("-----BEGIN", _BLOCK)),
    (b"earer ", _Rule("earer ", _BEARER, 6)),
    *((b"z", rule) for rule in _keys("AIza[A-Za-z0-9_-]{30,}", "AIza")),
    *((b"K", rule) for rule in _keys("AKIA[A-Z0-9]{16}(?![A-Za-z0-9_])", "AKIA")),
    *((b"I", rule) for rule in _keys("ASIA[A-Z0-9]{16}(?![A-Za-z0-9_])", "ASIA")),
    *((b"J", rule) for rule in _keys(r"eyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,}", "eyJ")),
)
# Not each of the others is looked for: a record is split at all - and _; the ends of its pieces tell what may be there.
_BY_END: dict[bytes, tuple[_Rule, ...]] = {}
for _rule in _WITH_END:
    _BY_END[_rule.end] = (*_BY_END.get(_rule.end, ()), _rule)
# Those of many words first: a key must not take their first word away.
_ALL = (*(rule for _, rule in _WITHOUT_END), *chain(*_BY_END.values()))
_LAST_TWO = itemgetter(slice(-2, None))
_MOST_ENDS = 10_000  # a millisecond in which no other thread runs
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

    def clean(self, body: dict[str, Any], capture: str, own: Callable[[], Collection[str]] = tuple) -> bytes:
        """Return the JSON of `body` as it may be stored; `own` gives the ids by which the record is found again."""
        if capture == "metadata":
            body = without_content(body)
        encoded = dumps(body)
        if self._setting is False:
            return encoded
        if rules := _rules_for(encoded):
            encoded = dumps(_masked(orjson.loads(encoded), own(), rules))
        if self._own is None:
            return encoded
        return self._by_user(encoded, own())

    def names(self, payload: bytes, given: tuple[str, str]) -> tuple[str, str]:
        """Return provider and model as they may stand in columns of their own."""
        if self._own is not None:
            body = orjson.loads(payload)
            return body["provider"], body["model"]
        provider, model = given
        return (provider, model) if self._setting is False else (_hidden_name(provider), _hidden_name(model))

    def _by_user(self, encoded: bytes, ours: Collection[str]) -> bytes:
        assert self._own is not None
        function: Any = self._setting
        try:
            return dumps(
                self._own.run(lambda: _mapped(orjson.loads(encoded), lambda t, f: _text_of(function(t, f)), ours))
            )
        except FailedError as error:
            self._on_failure(error)
            return dumps(_without_texts(orjson.loads(encoded), ours))


class FailedError(Exception):
    """The user's function failed; its own words are not repeated, they may hold what it was to hide."""


def _rules_for(encoded: bytes) -> Sequence[_Rule]:
    """Return the rules that may find something in a record; mostly none."""
    if b"\\\\u00" in encoded:  # a sign may be written in escapes
        return _ALL
    likely = [rule for seldom, rule in _WITHOUT_END if seldom in encoded]
    pieces = encoded.replace(b"-", b"_").split(b"_", _MOST_ENDS)
    ends = _BY_END.keys() if len(pieces) > _MOST_ENDS else _BY_END.keys() & map(_LAST_TWO, pieces)
    likely += (rule for end, rules in _BY_END.items() if end in ends for rule in rules)
    return [rule for rule in likely if rule.sign.encode() in encoded]


def _masked(value: Any, ours: Collection[str], rules: Sequence[_Rule]) -> Any:
    """Return a JSON value with what looks like a secret masked in its texts and in the names of its fields."""
    if isinstance(value, str):
        return value if value in ours else _hidden(value, rules)
    if isinstance(value, list):
        return [_masked(each, ours, rules) for each in value]
    if isinstance(value, dict):
        found: dict[str, Any] = {}
        for name, each in value.items():
            told = _hidden(name, rules)
            while told in found:  # two secrets: both values are kept
                told += "'"
            found[told] = _masked(each, ours, rules)
        return found
    return value


def _hidden(text: str, rules: Sequence[_Rule] = _ALL) -> str:
    if "\\u00" in text:
        told = _ESCAPED.sub(lambda match: chr(int(match[1], 16)), text)
        if _without(told, rules) != told:
            text = told
    return _without(text, rules)


def _without(text: str, rules: Sequence[_Rule]) -> str:
    for rule in rules:
        text = rule.applied(text)
    return text


@lru_cache(maxsize=1024)
def _hidden_name(text: str) -> str:
    return _hidden(text)


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


# Fields of a request that the schema fixes: changing them would make it invalid without hiding anything.
_FIXED = frozenset({"status", "error_type", "api_type", "request_start_time", "request_end_time"})
_FIXED_INSIDE = frozenset({"type", "role", "format", "template_format"})  # of the conversation
_KIND = re.compile("[a-z_-]{1,40}")


def _mapped(
    value: Any, change: Callable[[str, str], str], ours: Collection[str], field: str = "", key: str = ""
) -> Any:
    if isinstance(value, str):
        return value if _is_fixed(value, field, key) or value in ours else change(value, field)
    if isinstance(value, list):
        return [_mapped(each, change, ours, field, key) for each in value]
    if isinstance(value, dict):
        return {name: _mapped(each, change, ours, field or name, name) for name, each in value.items()}
    return value


def _is_fixed(value: str, field: str, key: str) -> bool:
    if field in ("input", "output"):
        return key in _FIXED_INSIDE and _KIND.fullmatch(value) is not None
    return field in _FIXED and field == key


def _without_texts(body: dict[str, Any], ours: Collection[str]) -> Any:
    keep = {"provider", "model", "function_name", "prompt_name"}
    emptied = {**without_content(body), "tags": []} if "tags" in body else without_content(body)
    return _mapped(emptied, lambda text, field: text if field in keep else "", ours)


def _text_of(answer: str | None) -> str:
    if answer is None:
        return ""
    if not isinstance(answer, str):
        raise FailedError(f"redact returned {type(answer).__name__}, not str or None")
    return answer


_Job = tuple[Callable[[], Any], "queue.SimpleQueue[tuple[Any, BaseException | None]]"]


class _Bounded:
    """Runs functions one after the other on a thread that is left behind when one of them hangs."""

    def __init__(self) -> None:
        self._jobs: queue.SimpleQueue[_Job | None] | None = None
        self._left: set[queue.SimpleQueue[_Job | None]] = set()

    def run(self, function: Callable[[], T]) -> T:
        """Return what `function` returns; raise FailedError when it raises or takes too long."""
        jobs = self._jobs or self._start()
        answer: queue.SimpleQueue[tuple[Any, BaseException | None]] = queue.SimpleQueue()
        jobs.put((function, answer))
        try:
            value, error = answer.get(timeout=_TIME_LIMIT)
        except queue.Empty:
            self._left.add(jobs)
            jobs.put(None)
            self._jobs = None
            raise FailedError(f"redact took longer than {_TIME_LIMIT:g} s") from None
        if error is not None:
            raise error if isinstance(error, FailedError) else FailedError(f"redact raised {_place(error)}")
        found: T = value
        return found

    def __del__(self) -> None:
        if self._jobs is not None:
            self._jobs.put(None)

    def _start(self) -> queue.SimpleQueue[_Job | None]:
        if len(self._left) >= _LEFT_MOST:
            raise FailedError("redact hangs: it is not called until it comes back")
        jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._jobs = jobs
        threading.Thread(target=_serve, args=(jobs, self._left), name="pltrack-redact", daemon=True).start()
        return jobs


def _serve(jobs: queue.SimpleQueue[_Job | None], left: set[queue.SimpleQueue[_Job | None]]) -> None:
    while (job := jobs.get()) is not None:
        function, answer = job
        try:
            answer.put((function(), None))
        except BaseException as error:  # noqa: BLE001 -- handed to the caller, who fails closed
            answer.put((None, error))
    left.discard(jobs)


def _place(error: BaseException) -> str:
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    where = f" at {trace.tb_frame.f_code.co_filename}:{trace.tb_lineno}" if trace is not None else ""
    return f"{type(error).__name__}{where}"
