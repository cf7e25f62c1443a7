"""What can be set, where it comes from, and what happens to a value that cannot be used."""

from __future__ import annotations

import hashlib
import json
import os
import re
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, Self
from urllib.parse import urlsplit

from .errors import SettingError

BASE_URL = "https://api.promptlayer.com"
Redact = Callable[[str, str], str | None]


# An address's login, and a key: people put keys into the wrong argument.
_KEYS = re.compile(r"(?<=//)[^/\s]*(?=@)|\bpl_\w{4,}")


def unkeyed(text: str) -> str:
    """Return text that can be shown: without logins in addresses, and without what looks like a key."""
    return _KEYS.sub("***", text)


@lru_cache(maxsize=64)
def _forms(api_key: str) -> frozenset[bytes]:
    return frozenset(form.encode() for form in (api_key, json.dumps(api_key)[1:-1], repr(api_key)[1:-1]) if form)


@dataclass(frozen=True, slots=True)
class Destination:
    """Where records go: a PromptLayer workspace, known in the journal only by its fingerprint."""

    base_url: str = field(repr=False)
    api_key: str = field(repr=False)
    earlier_key: str = field(default="", repr=False)  # the records are known under it, and sent with `api_key`

    @property
    def fingerprint(self) -> str:
        """Name this destination without giving its key away; the empty string is "nowhere yet"."""
        if not self.api_key:
            return ""
        known_by = self.earlier_key or self.api_key
        return hashlib.sha256(f"{self.base_url}\0{known_by}".encode()).hexdigest()[:16]

    def __str__(self) -> str:
        return unkeyed(self.base_url)

    def without_key(self, told: bytes) -> bytes:
        """Return what may be stored and logged of an answer: servers and proxies repeat what they refuse."""
        for form in _forms(self.api_key):
            told = told.replace(form, b"***")
        return told


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Everything that `configure()` takes, with its default; see docs/settings.md for the meanings."""

    api_key: str = field(default="", repr=False)
    previous_api_keys: tuple[str, ...] = field(default=(), repr=False)
    base_url: str = field(default=BASE_URL, repr=False)
    journal: Path | None = None
    hub: str = field(default="", repr=False)
    app: str = ""
    enabled: bool = True
    require_key: bool = False
    delivery: str = "background"
    sample_rate: float = 1.0
    capture: str = "full"
    redact: bool | Redact = True
    send_price: bool = False
    fold: tuple[str, ...] = ("metadata", "prompt", "score")
    on_unknown: str = "verify"
    linger: float = 0.5
    id_timeout: float = 10.0
    exit_timeout: float = 2.0
    http_timeout: float = 10.0
    concurrency: int = 8
    max_pending: int = 100_000
    max_body: int = 4_194_304
    keep_content: float = 7.0
    keep_ids: float = 400.0
    max_size: int = 1_073_741_824
    min_free: int = 134_217_728
    secret: str = field(default="", repr=False)

    @property
    def destination(self) -> Destination:
        """The workspace that records without a key of their own go to."""
        return Destination(self.base_url, self.api_key)

    @property
    def destinations(self) -> tuple[Destination, ...]:
        """What this process may deliver: records of its own key, and those of earlier keys under its own."""
        earlier = (key for key in self.previous_api_keys if key != self.api_key)
        return (self.destination, *(Destination(self.base_url, self.api_key, key) for key in earlier))

    @property
    def hub_shown(self) -> str:
        """The hub's address without its password."""
        before, at, place = self.hub.rpartition("@")
        return f"{before.partition('://')[0]}://***@{place}" if at else self.hub

    def changed(self, changes: Mapping[str, Any]) -> Self:
        """Return these settings with `changes` applied; raise SettingError naming what cannot be used."""
        return replace(self, **{name: _checked(name, value, name) for name, value in changes.items()})


def from_environment(environ: Mapping[str, str]) -> tuple[dict[str, Any], list[SettingError]]:
    """Read `PROMPTLAYER_*` and `PLTRACK_*`: what could be used, and an error for each that could not.

    An unusable value for `capture` or `redact` also yields its most private choice, so that a caller who
    only logs the errors never records more than was meant.
    """
    found: dict[str, Any] = {}
    errors: list[SettingError] = []
    for name, variable in _VARIABLES.items():
        text = environ.get(variable, "").strip()
        if not text:
            continue
        try:
            found[name] = _checked(name, text, variable)
        except SettingError as error:
            errors.append(error)
            if name in _MOST_PRIVATE:
                found[name] = _MOST_PRIVATE[name]
    return found, errors


def disabled_by(environ: Mapping[str, str]) -> bool:
    """Tell whether `PLTRACK_DISABLED` is set to anything that means yes."""
    return environ.get("PLTRACK_DISABLED", "").strip().lower() in _YES


def program_name() -> str:
    """Name this program for the `app` column: the script's name without its folder."""
    name = Path(sys.argv[0]).name if sys.argv and sys.argv[0] else ""
    return name if name not in {"", "-c", "-m"} else "python"


_YES = {"1", "true", "yes", "on"}
_NO = {"0", "false", "no", "off"}
_MOST_PRIVATE: dict[str, Any] = {"capture": "metadata", "redact": True}
_CHOICES = {
    "delivery": ("background", "external", "off"),
    "capture": ("full", "metadata"),
    "on_unknown": ("verify", "resend", "hold"),
}
_FOLDS = ("metadata", "prompt", "score")
_KEY_LEAST = 16
_RANGES: dict[str, tuple[float, float]] = {
    "sample_rate": (0, 1),
    **dict.fromkeys(("id_timeout", "exit_timeout", "linger"), (0, 86_400)),  # seconds
    "http_timeout": (0.1, 30),  # an exchange ends before its lease does, or another process would take the row over
    **dict.fromkeys(("keep_content", "keep_ids"), (0, 36_500)),  # days
}
_WHOLE: dict[str, tuple[float, float]] = {
    **dict.fromkeys(("concurrency", "max_pending"), (1, 10_000_000)),
    **{"max_body": (4_096, 2**50), "max_size": (1_048_576, 2**50), "min_free": (0, 2**50)},  # bytes
}
_NAMES = frozenset(each.name for each in fields(Settings))
_VARIABLES = {name: f"PLTRACK_{name.upper()}" for name in _NAMES} | {
    "api_key": "PROMPTLAYER_API_KEY",
    "base_url": "PROMPTLAYER_BASE_URL",
}


def _checked(name: str, value: Any, called: str) -> Any:
    if name not in _NAMES:
        raise SettingError(f"pltrack has no setting {name!r}; it knows {', '.join(sorted(_NAMES))}")
    try:
        return _converted(name, value)
    except (TypeError, ValueError) as error:
        shown = "the value given" if "key" in name or name in {"secret", "hub"} else _shown(value)
        raise SettingError(f"{called}: {shown} cannot be used: {error}") from None


def _shown(value: object) -> str:
    if isinstance(value, str):  # a key is longer, and may have been put into the wrong argument
        return unkeyed(repr(value)) if len(value) < _KEY_LEAST else f"a text of {len(value)} characters"
    return repr(value) if isinstance(value, int | float | type(None)) else type(value).__name__


def _converted(name: str, value: Any) -> Any:  # noqa: C901 -- one line per kind of setting
    if name in _CHOICES:
        return _choice(value, _CHOICES[name])
    if name in {"enabled", "require_key", "send_price"}:
        return _truth(value)
    if name == "redact":
        return value if callable(value) else _truth(value)
    if name == "journal":
        return Path(os.fspath(value)).expanduser() if value is not None else None
    if name in _RANGES:
        return _number(value, *_RANGES[name])
    if name in _WHOLE:
        return int(_number(value, *_WHOLE[name]))
    if name == "previous_api_keys":
        keys = value.replace(",", " ").split() if isinstance(value, str) else value
        return tuple(key for key in map(checked_key, keys) if key)
    if name == "api_key":
        return checked_key("" if value is None else value)
    if name == "fold":
        names = tuple(value.replace(",", " ").split()) if isinstance(value, str) else tuple(value)
        return tuple(_choice(each, _FOLDS) for each in names)
    text = "" if value is None else value
    if not isinstance(text, str):
        raise TypeError(f"expected text, got {type(value).__name__}")
    if name == "base_url":
        return _url(text)
    if name == "hub":
        return _hub(text.strip())
    return text.strip()


def checked_key(value: object) -> str:
    """Return an API key without the space around it; it goes into an HTTP header, and never into a message."""
    if not isinstance(value, str):
        raise TypeError(f"expected text, got {type(value).__name__}")
    key = value.strip()
    if not (key.isascii() and key.isprintable()):
        raise ValueError("expected printable ASCII characters, the value given has others")
    return key


def _url(text: str) -> str:
    text = text.strip().rstrip("/") or BASE_URL
    if not text.startswith(("http://", "https://")):
        raise ValueError("expected an address that starts with http:// or https://")
    try:
        parts = urlsplit(text)
        sound = parts.hostname and parts.port != 0 and not (parts.query or parts.fragment)
    except ValueError:  # of the port: its words repeat the text
        sound = False
    if not sound:
        raise ValueError("expected an address such as https://host:port/path")
    return text


def _hub(text: str) -> str:
    if text and not text.startswith(("postgresql://", "postgres://")):
        raise ValueError("expected an address that starts with postgresql://")
    return text.replace("postgres://", "postgresql://", 1)


def _choice(value: Any, allowed: tuple[str, ...]) -> Any:
    if value not in allowed:
        raise ValueError(f"expected one of {', '.join(allowed)}")
    return value


def _truth(value: Any) -> bool:
    if isinstance(value, bool):
        return value
    if isinstance(value, str) and value.strip().lower() in _YES | _NO:
        return value.strip().lower() in _YES
    raise ValueError("expected true or false")


def _number(value: Any, low: float, high: float) -> float:
    if isinstance(value, bool):
        raise ValueError("expected a number")
    try:
        number = float(value)
    except ValueError:
        raise ValueError("expected a number") from None
    if not low <= number <= high:
        raise ValueError(f"expected a number from {low:g} to {high:g}")
    return number
