"""Rows of the journal as people want to see them: one entry per request."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from .errors import JournalError

if TYPE_CHECKING:
    from ._journal.browsing import Filters
    from ._journal.store import Store

_SHORT_ID_AMONG = 200  # newest requests in which the end of an id is looked for
_WHOLE_ID = 32
_CLASS = re.compile(r"(?:[a-z_]\w*\.)+([A-Z]\w*)")
SHORT = 8


@dataclass(frozen=True, slots=True)
class Entry:
    """One request with what was said about it."""

    row: Mapping[str, Any]
    body: Mapping[str, Any]  # what PromptLayer gets; empty once its content was cleared

    @property
    def id(self) -> str:
        """Our id."""
        return str(self.row["id"])

    @property
    def started(self) -> datetime:
        """When the call began, in local time."""
        return datetime.fromtimestamp(self.row["started_at"], UTC).astimezone()

    @property
    def seconds(self) -> float:
        """How long the call took."""
        return max(0.0, float(self.row["ended_at"] - self.row["started_at"]))

    @property
    def status(self) -> str:
        """SUCCESS, WARNING or ERROR."""
        return str(self.body.get("status") or self.row["status"])

    @property
    def short_model(self) -> str:
        """The model's name; of one that is known by its class, without the package."""
        name = str(self.row["model"])
        found = _CLASS.fullmatch(name)
        return found[1] if found else name

    @property
    def tags(self) -> list[str]:
        """The tags it was recorded with."""
        return [str(tag) for tag in self.body.get("tags") or json.loads(self.row.get("tags") or "[]")]

    @property
    def metadata(self) -> dict[str, str]:
        """Metadata, what was added later included."""
        found = dict(self.body.get("metadata") or {})
        for note in self.notes("metadata"):
            found |= note["said"].get("metadata") or {}
        return {str(key): str(value) for key, value in found.items()}

    @property
    def scores(self) -> dict[str, int]:
        """Scores by name, the last of each; the unnamed one under the empty name."""
        return {
            str(note["said"].get("name", "")): note["said"]["score"]
            for note in self.notes("score")
            if "score" in note["said"]
        }

    @property
    def prompts(self) -> list[dict[str, Any]]:
        """Links to prompts: the one that the call made itself, then those made by hand."""
        links = [note["said"] for note in self.notes("prompt")]
        if self.body.get("prompt_name"):
            own = {"prompt_name": "prompt_name", "version": "prompt_version_number"}
            own["prompt_input_variables"] = "prompt_input_variables"
            links.insert(0, {name: self.body.get(field) for name, field in own.items()})
        if self.row.get("local_link"):
            links.insert(0, mapping_of(self.row["local_link"]))
        return links

    @property
    def session(self) -> Mapping[str, Any]:
        """The session it was made in; empty outside of any."""
        return self.row.get("session") or {}

    @property
    def delivery(self) -> str:
        """What became of it, in two words."""
        state = self.row["state"]
        if state == "delivered":
            return f"sent #{self.row['pl_id']}"
        if state in ("failed", "forwarded"):
            return "refused" if state == "failed" else "at the hub"
        return "sending" if state == "sending" else "waiting" if self.row["destination"] else "no key"

    def notes(self, kind: str = "") -> list[dict[str, Any]]:
        """Return what was said about it, in order; `said` is the note's content."""
        return [
            {**note, "said": mapping_of(note["payload"])}
            for note in self.row.get("notes") or ()
            if not kind or note["kind"] == kind
        ]

    def summary(self) -> dict[str, Any]:
        """Return it as `ls --json` shows it."""
        row, session = self.row, self.session
        return {
            "id": self.id,
            "request_id": row["pl_id"],
            "started_at": self.started.isoformat(),
            "seconds": round(self.seconds, 6),
            "app": row["app"],
            "provider": row["provider"],
            "model": row["model"],
            "status": self.status,
            "input_tokens": row["input_tokens"],
            "output_tokens": row["output_tokens"],
            "cached_tokens": row["cached_tokens"],
            "reasoning_tokens": row["reasoning_tokens"],
            "cost": row["cost"],
            "scores": self.scores,
            "delivery": {"state": row["state"], "attempts": row["attempts"], "reason": row["reason"]},
            "destination": row["destination"] or None,
            "session": {"id": row["session_id"], "name": session.get("name") or ""} if row["session_id"] else None,
        }

    def full(self) -> dict[str, Any]:
        """Return it as `show --json` shows it."""
        notes = [
            {"kind": note["kind"], "said": note["said"], "state": note["state"], "reason": note["reason"]}
            for note in self.notes()
        ]
        names = ("input", "output", "parameters", "error_type", "error_message")
        return {
            **self.summary(),
            "session": dict(self.session) or None,
            "tags": self.tags,
            "metadata": self.metadata,
            "prompts": self.prompts,
            "notes": notes,
            **{name: self.body.get(name) for name in names},
        }


def newest(store: Store, limit: int, filters: Filters | None = None) -> list[Entry]:
    """Return the newest requests first, without their content; those that fit where filters are given."""
    from ._journal.browsing import Browser, Filters

    browser, wanted = Browser(store), filters or Filters()
    found: list[Entry] = []
    page = browser.requests(wanted, limit=limit)
    while True:
        found += map(entry_of, page.rows)
        if len(found) >= limit or page.older is None:
            return found
        page = browser.requests(wanted, before=page.older, limit=limit - len(found))


def every(store: Store, filters: Filters) -> Iterator[Entry]:
    """Return what there is now and fits, the oldest first, with its content; a few at a time."""
    from ._journal.browsing import Browser

    return map(entry_of, Browser(store).every(filters))


def find(store: Store, wanted: str) -> Entry | None:
    """Return a request by our id, the end of one, PromptLayer's id, or the word `last`."""
    exact = store.rows(1, None if wanted == "last" else wanted)
    if exact or wanted == "last":
        return entry_of(exact[0]) if exact else None
    if not SHORT // 2 <= len(wanted) < _WHOLE_ID:
        return None
    near = [row for row in store.rows(_SHORT_ID_AMONG) if row["id"].endswith(wanted)]
    if len(near) > 1:
        raise JournalError(f"{wanted} is the end of {len(near)} ids; give more of it")
    return entry_of(near[0]) if near else None


def is_whole_id(wanted: str) -> bool:
    """Tell whether this may be the id of a request that this journal does not know."""
    return wanted.isdigit() or len(wanted) >= _WHOLE_ID


def text_of(blueprint: Any) -> list[tuple[str, str]]:
    """Return a prompt blueprint as (who, what) in order."""
    given = blueprint if isinstance(blueprint, Mapping) else {}
    if given.get("type") == "completion":
        return [("text", _content(given.get("content")))] if given.get("content") else []
    return [(_speaker(one), _message(one)) for one in _mappings(given.get("messages"))]


def entry_of(row: Mapping[str, Any]) -> Entry:
    """Return a row as an entry; its body is empty where the content is not at hand or gone."""
    return Entry(row, mapping_of(row.get("payload")))


def _speaker(message: Mapping[str, Any]) -> str:
    named = message.get("name") or message.get("tool_call_id")
    return f"{message.get('role', '?')} {named}" if named else str(message.get("role", "?"))


def _message(message: Mapping[str, Any]) -> str:
    parts = [_content(message.get("content"))]
    for call in _mappings(message.get("tool_calls")):
        function = call.get("function") or {}
        parts.append(f"→ {function.get('name', '?')}({function.get('arguments', '')})")
    return "\n".join(part for part in parts if part)


def _content(blocks: Any) -> str:
    if isinstance(blocks, str):
        return blocks
    return "\n".join(_block(block) for block in _mappings(blocks))


def _block(block: Mapping[str, Any]) -> str:
    kind = str(block.get("type", "?"))
    found = block.get("text", block.get(kind))
    return found if isinstance(found, str) else f"[{kind}]"


def _mappings(value: Any) -> Sequence[Mapping[str, Any]]:
    return [each for each in value if isinstance(each, Mapping)] if isinstance(value, list) else []


def mapping_of(text: str | bytes | None) -> dict[str, Any]:
    """Return what is stored as JSON; empty where it is nothing or no mapping."""
    try:
        found = json.loads(text or "{}")
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}
