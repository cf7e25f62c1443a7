"""A session in HTTP headers: its id and the sampling decision, signed where a secret is configured."""

from __future__ import annotations

import base64
import hashlib
import hmac
import logging
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote, unquote

import orjson

from ._plain import dumps
from ._records import Scope

log = logging.getLogger("pltrack")

SESSION = "x-pltrack-session"
CONTEXT = "x-pltrack-context"
_MOST = 4096
_VALUE_MOST = 512
_SOUND = re.compile(r"[A-Za-z0-9_.~%;-]+")
_INCLUDABLE = frozenset({"tags", "metadata", "user", "conversation", "name"})


@dataclass(frozen=True, slots=True)
class Joined:
    """What headers say of the session they carry."""

    id: str
    root: str
    sampled: bool
    tags: tuple[str, ...] = ()
    metadata: dict[str, str] = field(default_factory=dict)
    user: str | None = None
    conversation: str | None = None
    name: str = ""


def merged(joined: Joined, options: Mapping[str, Any]) -> dict[str, Any]:
    """Return a session's options with what headers say: the local ones win, an own id does not."""
    carried = {"name": joined.name, "user": joined.user, "conversation": joined.conversation}
    given = {key: value for key, value in options.items() if value is not None}
    return {
        **{key: value for key, value in carried.items() if value},
        **given,
        "id": joined.id,
        "tags": (*joined.tags, *given.get("tags", ())),
        "metadata": {**joined.metadata, **given.get("metadata", {})},
    }


def is_sampled(root: str, rate: float) -> bool:
    """Decide by a hash of the outermost session's id: the same in every process."""
    if rate >= 1:
        return True
    share = int.from_bytes(hashlib.blake2b(root.encode(errors="replace"), digest_size=8).digest()) / 2**64
    return share < rate


def written(scope: Scope, sampled: bool, include: frozenset[str], secret: str) -> dict[str, str]:
    """Return the headers that carry a session."""
    unknown = include - _INCLUDABLE
    if unknown:
        raise ValueError(f"include: unknown {sorted(unknown)}; allowed are {sorted(_INCLUDABLE)}")
    parts = [
        quote(scope.id, safe="", errors="replace"),
        quote(scope.root, safe="", errors="replace"),
        "1" if sampled else "0",
    ]
    context = _context(scope, include)
    if secret:
        parts.append(_signature(parts, context, secret))
    headers = {SESSION: ";".join(parts)}
    if context:
        headers[CONTEXT] = context
    return headers


def read(headers: Mapping[str, str] | Iterable[tuple[Any, Any]], secret: str) -> Joined | None:
    """Return what headers carry; None where they carry nothing, or nothing that can be trusted."""
    pairs: Any = headers.items() if hasattr(headers, "items") else headers
    found = {_plain(name).lower(): _plain(value) for name, value in pairs}
    value, context = found.get(SESSION, ""), found.get(CONTEXT, "")
    if not value:
        return None
    parts = value.split(";")
    if len(value) > _MOST or len(context) > _MOST or len(parts) not in (3, 4) or not _SOUND.fullmatch(value):
        return None
    if secret:
        expected = _signature(parts[:3], context, secret)
        if len(parts) != 4 or not hmac.compare_digest(parts[3].encode(), expected.encode()):
            log.warning("pltrack: headers that are not signed with our secret were not joined")
            return None
    own, root = unquote(parts[0]), unquote(parts[1])
    if not (0 < len(own) <= _VALUE_MOST and 0 < len(root) <= _VALUE_MOST) or "\0" in own + root:
        return None
    if parts[2] not in ("0", "1"):
        return None
    return Joined(own, root, parts[2] == "1", **_read_context(context))


def _context(scope: Scope, include: frozenset[str]) -> str:
    said = {name: getattr(scope, name) for name in sorted(include) if getattr(scope, name)}
    if not said:
        return ""
    text = base64.urlsafe_b64encode(dumps(said)).decode()
    if len(text) > _MOST:
        log.warning("pltrack: what headers(include=) asked for is too long to be sent; only the id goes")
        return ""
    return text


def _read_context(text: str) -> dict[str, Any]:
    if not text:
        return {}
    try:
        said = orjson.loads(base64.urlsafe_b64decode(text))
    except ValueError:
        return {}
    if not isinstance(said, dict):
        return {}
    found: dict[str, Any] = {
        name: value
        for name in ("user", "conversation", "name")
        if isinstance(value := said.get(name), str) and len(value) <= _VALUE_MOST
    }
    tags, metadata = said.get("tags"), said.get("metadata")
    if isinstance(tags, list):
        found["tags"] = tuple(tag for tag in tags if isinstance(tag, str) and 0 < len(tag) <= _VALUE_MOST)
    if isinstance(metadata, dict):
        found["metadata"] = {
            key: value for key, value in metadata.items() if isinstance(value, str) and 0 < len(key) <= _VALUE_MOST
        }
    return found


def _signature(parts: list[str], context: str, secret: str) -> str:
    said = "\n".join((*parts, context)).encode(errors="replace")
    return hmac.new(secret.encode(), said, hashlib.sha256).hexdigest()


def _plain(value: object) -> str:
    return value.decode("latin-1") if isinstance(value, bytes) else str(value)
