"""What a fake PromptLayer can be told to get wrong."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Self, TypedDict, Unpack

Kind = Literal["answer", "silent", "drop", "slow", "garbage", "truncated"]


class Matching(TypedDict, total=False):
    """Which calls a fault is for, and how many of them."""

    times: int | None
    path: str
    when: Callable[[Any], bool] | None


class Storing(Matching, total=False):
    """The same, and whether the server does what the call asks before it misbehaves."""

    store: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """Answer the next `times` matching calls with `status` instead of doing what they ask.

    With `times=None` it goes on until `heal()`. A call matches when its path starts with `path` and, where
    `when` is given, `when(body)` is true of its JSON body. `body` is sent as JSON, or as it is when it is
    text or bytes. With `store=True` the server does what the call asks before it misbehaves: the client
    cannot know it.
    """

    status: int = 500
    times: int | None = None
    path: str = "/"
    when: Callable[[Any], bool] | None = None
    body: Any = None
    headers: Mapping[str, str] = field(default_factory=dict)
    store: bool = False
    kind: Kind = "answer"
    seconds: float = 0.0

    @classmethod
    def silent(cls, **matching: Unpack[Storing]) -> Self:
        """Take the call and never answer: `heal()` answers those who still wait, `stop()` hangs up."""
        return cls(kind="silent", **matching)

    @classmethod
    def drop(cls, **matching: Unpack[Storing]) -> Self:
        """Read the call, then close the connection without a word."""
        return cls(kind="drop", **matching)

    @classmethod
    def slow(cls, seconds: float, **matching: Unpack[Matching]) -> Self:
        """Answer properly, but only after `seconds`, and do what is asked even if the client has left."""
        return cls(kind="slow", seconds=seconds, **matching)

    @classmethod
    def garbage(cls, *, status: int = 200, **matching: Unpack[Storing]) -> Self:
        """Answer `status` with a web page instead of JSON, as proxies and captive portals do."""
        return cls(kind="garbage", status=status, **matching)

    @classmethod
    def truncated(cls, *, store: bool = True, **matching: Unpack[Matching]) -> Self:
        """Do what is asked, but close the connection in the middle of the answer."""
        return cls(kind="truncated", store=store, **matching)

    def matches(self, path: str, body: Any) -> bool:
        return path.startswith(self.path) and (self.when is None or self.when(body))
