"""`pltrack demo`: a small LangChain app on a fake model, tracked, and then what the journal knows of it.

No account, no key, no network: nothing is delivered, and a PROMPTLAYER_API_KEY in the environment is not used.
"""

from __future__ import annotations

import inspect
import logging
import os
import shutil
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pltrack

from .. import _entries, _runtime
from . import _views
from ._screen import complain, console

if TYPE_CHECKING:
    from langchain_core.runnables import Runnable
    from rich.console import Console

_ANSWERS = [
    ("red kettle, 1.5 litres", 41, 6),
    ("Yes: the red kettle is in stock. It holds 1.5 litres and arrives on Tuesday.", 96, 21),
    ("No worries! I have moved your delivery to Friday.", 58, 12),
]


# -- the app: nothing in it is about the demo ------------------------------------------------------------------


def publish_prompt() -> None:
    """Put the prompt of the app into the registry; without a key that is the local one, in the journal."""
    from langchain_core.prompts import ChatPromptTemplate

    template = ChatPromptTemplate([("system", "You sell {goods}. Answer in one sentence."), ("user", "{question}")])
    pltrack.prompts.publish("shop-answer", prompt_template=template)


def visit(model: Runnable[Any, Any]) -> pltrack.Session:
    """Serve one visitor: three model calls in nested sessions; no callbacks are passed anywhere."""
    with pltrack.pl_session("visit", tags=["shop"], user="u-7", conversation="c-9") as whole:
        with pltrack.pl_session("search", metadata={"catalogue": "2026-11"}) as search:
            model.invoke("What does the visitor look for: 'got that red kettle, the big one?'")
            search.score(80, name="relevance")

        with pltrack.pl_session("answer", tags=["rag"]) as answer:
            chain = pltrack.prompts.get("shop-answer") | model
            chain.invoke({"goods": "kettles", "question": "Is the red kettle in stock?"})
            answer.score(100)

        model.invoke("The visitor is not at home on Tuesday.")
        whole.metadata(plan="pro")
    return whole


def judge_later(request_id: str) -> None:
    """Score an answer after the fact: from another process or next week it is the same line."""
    pltrack.request(request_id).score(95, name="thumbs-up")


# -- the telling -----------------------------------------------------------------------------------------------


def run() -> int:
    """Run the app and show what was recorded; return the exit code."""
    logging.getLogger("pltrack").setLevel(logging.ERROR)  # that there is no key is the point here
    journal = _journal()
    _runtime.configure(journal=journal, delivery="off", api_key="", sample_rate=1.0, capture="full", app="demo")
    if not _runtime.is_enabled():
        complain("PLTRACK_DISABLED (or PLTRACK_ENABLED) says that nothing is to be recorded: there is no demo")
        return 1
    screen = console()
    _tell(screen, "A LangChain app, tracked without an account", _OPENING)
    _code(screen, publish_prompt, visit)
    publish_prompt()
    whole = visit(_fake_model())
    _tell(screen, "What the session knows at once", _session_facts(whole))
    _tell(screen, "A word about it later, by the id you stored", "")
    _code(screen, judge_later)
    judge_later(whole.requests[1].id)
    pltrack.flush(5)
    _show_journal(screen, whole)
    _tell(screen, "What to do next", _next_steps(journal))
    return 0


def _show_journal(screen: Console, whole: pltrack.Session) -> None:
    store = _runtime.get().lane.store()
    _tell(screen, f"What the journal holds: `{_command()} ls`", "")
    screen.print(_views.listing(_entries.newest(store, len(whole.requests)), screen))
    entry = _entries.find(store, whole.requests[1].id)
    assert entry is not None
    _tell(screen, f"One of them: `{_command()} show {entry.id[-_entries.SHORT :]}`", "")
    screen.print(_views.page(entry))


_OPENING = """\
Everything below really runs now, on a fake model. Nothing leaves this machine. This is the app:"""


def _session_facts(whole: pltrack.Session) -> str:
    used = whole.usage
    return (
        f"s.usage     {used.calls} calls, {used.errors} errors, {used.input_tokens} input and "
        f"{used.output_tokens} output tokens\n"
        f"s.ids       {whole.ids[0]}, ...\n"
        "            known before any network answer; store them to score later"
    )


def _next_steps(journal: Path) -> str:
    command = _command()
    return f"""\
Look around in this journal:

    export PLTRACK_JOURNAL={journal}
    {command} ls
    {command} show last
    {command} score last 90 --name tone
    {command} ui --open          # the same in your browser (needs the extra: pip install 'pltrack[ui]')

In your own app, three lines are enough:

    from pltrack import pl_session
    with pl_session("checkout", tags=["prod"]) as s:
        chain.invoke(...)

With PROMPTLAYER_API_KEY set, your calls appear in PromptLayer by themselves. What was recorded
before there was a key is sent by `{command} sync --adopt`. More: README.md"""


def _tell(screen: Console, heading: str, text: str) -> None:
    from rich.text import Text

    screen.print(Text(f"\n{heading}", style="bold magenta"))
    screen.print(Text("─" * min(len(heading), screen.width), style="magenta"))
    if text:
        screen.print(Text(text), soft_wrap=True)


def _code(screen: Console, *functions: Callable[..., Any]) -> None:
    """Print the source of functions: what is shown is what runs."""
    from rich.syntax import Syntax

    source = "\n\n".join(inspect.getsource(each).rstrip() for each in functions)
    screen.print()
    screen.print(Syntax(source, "python", theme="ansi_dark", background_color="default", padding=(0, 2)))


def _fake_model() -> Runnable[Any, Any]:
    from langchain_core.language_models.fake_chat_models import GenericFakeChatModel
    from langchain_core.messages import AIMessage
    from langchain_core.messages.ai import UsageMetadata

    def answers() -> Any:
        for text, asked, answered in _ANSWERS:
            usage = UsageMetadata(input_tokens=asked, output_tokens=answered, total_tokens=asked + answered)
            yield AIMessage(text, usage_metadata=usage, response_metadata={"model_name": "fake-model"})

    return GenericFakeChatModel(messages=answers())


def _journal() -> Path:
    """Return the journal that the environment names, or one in a fresh folder that stays to be looked at."""
    named = os.environ.get("PLTRACK_JOURNAL", "").strip()
    if named:
        return Path(named).expanduser()
    return Path(tempfile.mkdtemp(prefix="pltrack-demo-")) / "journal.db"


def _command() -> str:
    """Return how this command was called: in a virtual environment that is not active, by its path."""
    if shutil.which("pltrack") is not None or Path(sys.argv[0]).name != "pltrack":
        return "pltrack"
    return os.path.relpath(sys.argv[0])
