"""A day in a shop: what the page is looked at with, recorded through the public door by fake models.

Usage: python tests/shop.py JOURNAL [HUB]; prints the ids of a few requests worth looking at.
"""

from __future__ import annotations

import struct
import sys
import zlib
from base64 import b64encode
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from random import Random
from typing import Any

from langchain_core.language_models.fake_chat_models import GenericFakeChatModel
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage, HumanMessage, SystemMessage, ToolMessage
from langchain_core.messages.ai import UsageMetadata
from langchain_core.outputs import ChatGenerationChunk
from sqlalchemy import create_engine, text
from sqlalchemy.engine import make_url
from sqlalchemy.pool import NullPool

import pltrack
from pltrack.testing import FakePromptLayer, Fault

_DAY = 86400.0
_MOVED = """update requests set started_at = started_at - :back,
  ended_at = ended_at - :back + 0.1 + (seq * 37 % 23) / 10.0,
  first_token_at = first_token_at - :back + (seq * 37 % 5) / 10.0 where seq = :seq"""
_OPENED = """update sessions set started_at = started_at + coalesce((select min(requests.started_at) from requests
  where requests.session_id = sessions.id) - started_at, 0) where id <> root"""
_GOODS = ("kettle", "toaster", "bread knife", "teapot", "coffee grinder", "milk jug")
_ANSWERS = (
    "Yes: the {} is in stock. It arrives on Tuesday.",
    "No worries! I have moved the delivery of your {} to Friday.",
    "The {} comes in red, blue and steel.\n\nThe red one is 10 % off this week.",
    "I am sorry that the {} broke. A new one is on its way; keep the old one.",
)
_TOOL = {
    "type": "function",
    "function": {
        "name": "look_up_stock",
        "description": "How many of a thing are in stock.",
        "parameters": {"type": "object", "properties": {"thing": {"type": "string"}}, "required": ["thing"]},
    },
}


class ChatOpenAI(GenericFakeChatModel):
    """A fake that names itself as the real one does."""

    model: str = "gpt-4o-mini"
    temperature: float = 0.2

    @property
    def _identifying_params(self) -> dict[str, Any]:
        return {"model": self.model, "temperature": self.temperature}

    def _generate(self, messages: list[BaseMessage], *args: Any, **more: Any) -> Any:
        more.pop("tools", None)
        return super()._generate(messages, *args, **more)

    def _stream(self, messages: list[BaseMessage], *args: Any, **more: Any) -> Iterator[ChatGenerationChunk]:
        more.pop("tools", None)
        said = super()._generate(messages, *args, **more).generations[0].message
        words = str(said.content).split(" ")
        for number, word in enumerate(words):
            yield ChatGenerationChunk(message=AIMessageChunk(word + " " * (number + 1 < len(words))))
        end = {**said.response_metadata, "finish_reason": "stop"}
        yield ChatGenerationChunk(
            message=AIMessageChunk("", usage_metadata=said.usage_metadata, response_metadata=end),
            generation_info={"finish_reason": "stop"},
        )


class ChatAnthropic(ChatOpenAI):
    """Another one."""

    model: str = "claude-sonnet-4-5"


class BrokenModelError(RuntimeError):
    """What a provider says when it is overloaded."""


def record(journal: Path, server: FakePromptLayer, *, visits: int = 30, hub: str = "") -> list[str]:
    """Record `visits` visits to a shop, deliver them, and return the ids of some requests worth looking at."""
    random = Random(7)
    pltrack.configure(
        journal=journal, api_key=server.api_key, base_url=server.url, hub=hub, linger=0.0, app="shop",
        delivery="background",
    )  # fmt: skip
    _publish(server)
    server.fail(Fault(status=422, path="/log-request", when=_is_odd, body={"message": "model 'tiny-0' is not known"}))
    for number in range(visits):
        _visit(random, number)
    special = _special()
    pltrack.flush(20)
    _later(server)
    pltrack.flush(1)
    return special


def spread(url: str) -> None:
    """Move what was recorded back in time, evenly over the last twenty hours."""
    address = make_url(url)
    if address.drivername == "postgresql":
        address = address.set(drivername="postgresql+psycopg")
    engine = create_engine(address, poolclass=NullPool)
    with engine.begin() as db:
        roots = db.execute(text("select id from sessions where id = root order by started_at desc")).scalars().all()
        for number, root in enumerate(roots):
            back = number * 0.83 * _DAY / len(roots)
            db.execute(
                text("update sessions set started_at = started_at - :back where root = :root"),
                {"back": back, "root": root},
            )
            calls = db.execute(text("select seq from requests where root = :root order by started_at"), {"root": root})
            for place, seq in enumerate(calls.scalars().all()):
                db.execute(text(_MOVED), {"seq": seq, "back": back - 1.3 * place})
        db.execute(text(_OPENED))


def _is_odd(body: Any) -> bool:
    return body["model"] == "tiny-0"


def _publish(server: FakePromptLayer) -> None:
    for words in ("You sell kitchen things.", "You sell kitchen things. Answer in one sentence, warmly."):
        server.publish(
            "shop-answer",
            {
                "type": "chat",
                "input_variables": ["question"],
                "messages": [
                    {"role": "system", "content": [{"type": "text", "text": words}], "input_variables": []},
                    {
                        "role": "user",
                        "content": [{"type": "text", "text": "{question}"}],
                        "input_variables": ["question"],
                        "template_format": "f-string",
                    },
                ],
            },
            labels=["prod"],
        )


def _answers(*messages: AIMessage) -> Iterator[AIMessage]:
    yield from messages


def _said(words: str, asked: int, answered: int, model: str, **more: Any) -> AIMessage:
    usage = UsageMetadata(input_tokens=asked, output_tokens=answered, total_tokens=asked + answered)
    return AIMessage(words, usage_metadata=usage, response_metadata={"model_name": model}, **more)


def _model(kind: type[ChatOpenAI], words: str, random: Random, **more: Any) -> ChatOpenAI:
    name = more.get("model", kind.model_fields["model"].default)
    said = _said(words, random.randrange(40, 900), random.randrange(10, 220), name)
    return kind(messages=_answers(said), **more)


def _visit(random: Random, number: int) -> None:
    thing = random.choice(_GOODS)
    answer = random.choice(_ANSWERS).format(thing)
    kind = random.choice((ChatOpenAI, ChatOpenAI, ChatAnthropic))
    user = f"u-{number % 7}"
    with pltrack.pl_session("visit", tags=["shop"], user=user, conversation=f"c-{number}", metadata={"release": "42"}):
        with pltrack.pl_session("search", tags=["search"]) as search:
            _model(ChatOpenAI, thing, random).invoke(
                f"What does the visitor look for: 'got that {thing}, the big one?'"
            )
            search.score(random.randrange(55, 100), name="relevance")
        with pltrack.pl_session("answer", tags=["rag"]) as session:
            prompt = pltrack.prompts.get("shop-answer", version=1 + number % 2)
            chain = prompt | _model(kind, answer, random)
            for _ in chain.stream({"question": f"Is the {thing} in stock?"}):
                pass
            session.score(random.randrange(60, 90) + 8 * (number % 2))
        if number % 6 == 5:
            _fails(thing)


def _fails(thing: str) -> None:
    def broken() -> Iterator[AIMessage]:
        raise BrokenModelError("529 overloaded: try again in a moment")
        yield

    with suppress(BrokenModelError):
        ChatAnthropic(messages=broken()).invoke(f"Sum up the visit about the {thing}.")


def _special() -> list[str]:
    """Record requests that show what a page can: tools, pictures, a refused one."""
    call = {"name": "look_up_stock", "args": {"thing": "red kettle", "size": "1.5 l"}, "id": "call_7"}
    with pltrack.pl_session("picture search", tags=["shop", "vision"], user="u-3", conversation="c-99") as session:
        asked = HumanMessage(
            [
                {"type": "text", "text": "Do you have one like this? The big one, if there is."},
                {"type": "image_url", "image_url": {"url": _picture()}},
            ]
        )
        first = ChatOpenAI(messages=_answers(_said("", 812, 24, "gpt-4o-mini", tool_calls=[call])))
        system = SystemMessage("You sell kitchen things. Look up the stock before you promise anything.")
        said = first.invoke([system, asked], tools=[_TOOL])
        found = ToolMessage('{"in_stock": 12, "place": "shelf 4"}', tool_call_id="call_7", name="look_up_stock")
        second = ChatOpenAI(
            messages=_answers(_said("Yes, twelve of them. Shall I put one aside for you?", 871, 19, "gpt-4o-mini"))
        )
        for _ in second.stream([system, asked, said, found], tools=[_TOOL]):
            pass
        session.score(93, name="helpful")
        session.metadata(outcome="bought")
        ChatOpenAI(
            model="tiny-0", messages=_answers(_said("kettle?", 12, 3, "tiny-0"))
        ).invoke("What comes after 1, 2, 3?")  # fmt: skip
    return list(session.ids)


def _later(server: FakePromptLayer) -> None:
    """Record what is not delivered: the server is away, and something was recorded without a key."""
    server.fail(Fault(status=503, path="/log-request", body={"message": "upstream is restarting"}))
    with pltrack.pl_session("night shift", tags=["batch"]):
        ChatOpenAI(messages=_answers(_said("Nine parcels are late.", 310, 8, "gpt-4o-mini"))).invoke("What is late?")


def _picture() -> str:
    """Draw a red kettle of 48 x 48 points."""
    rows = bytearray()
    for y in range(48):
        rows.append(0)
        for x in range(48):
            body = (x - 22) ** 2 / 210 + (y - 28) ** 2 / 190 < 1
            spout = 0 < x - 34 < 9 and abs((y - 24) + (x - 34)) < 3
            handle = 11 < ((x - 22) ** 2 + (y - 16) ** 2) ** 0.5 < 14 and y < 18
            rows += bytes((196, 49, 42) if body or spout else (60, 60, 66) if handle else (244, 240, 233))

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", 48, 48, 8, 2, 0, 0, 0)
    png = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(bytes(rows))) + chunk(b"IEND", b"")
    return f"data:image/png;base64,{b64encode(png).decode()}"


def main(journal: str, hub: str = "") -> None:
    """Record the day and leave."""
    with FakePromptLayer(api_key="pl_shop") as server:
        print(*record(Path(journal), server, hub=hub))
        pltrack.shutdown(0.5)
    spread(hub or f"sqlite:///{journal}")


if __name__ == "__main__":
    main(*sys.argv[1:])
