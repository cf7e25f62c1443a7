"""What was recorded is anybody's text: in a real browser it stays text, whatever it is and wherever it stands."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import pytest
from browsers import Served, chromium, looking, served
from programs import environment

HOSTILE = (
    "<script>alert(1)</script><img src=x onerror=alert(2)><svg onload=alert(3)>\"'><iframe src=//evil.example>"
    "</textarea></title></style>{{1111*1111}}${1111*1111}<a href=javascript:alert(4)>go</a> "
    "\x1b[31mred\x1b]0;t\x07 \u202egnp.exe"
)
PROGRAM = f"""
import pltrack, sys
from langchain_core.language_models.fake_chat_models import FakeListChatModel, GenericFakeChatModel
from langchain_core.messages import AIMessage, HumanMessage, SystemMessage, ToolMessage
bad = {HOSTILE!r}
class Model(GenericFakeChatModel):
    model: str = bad
pltrack.configure(delivery="off")
far = "https://evil.example/track.png"
media = [{{"type": "text", "text": bad}}, {{"type": "image_url", "image_url": {{"url": far}}}},
    {{"type": "image_url", "image_url": {{"url": "data:image/svg+xml;base64,PHN2ZyBvbmxvYWQ9ImFsZXJ0KDEpIi8+"}}}},
    {{"type": "image_url", "image_url": {{"url": "data:text/html,<script>alert(5)</script>"}}}},
    {{"type": "image_url", "image_url": {{"url": "javascript:alert(6)"}}}},
    {{"type": "input_audio", "input_audio": {{"data": "AAAA", "format": "wav"}}}}]
call = {{"name": bad, "args": {{bad: bad}}, "id": bad}}
with pltrack.pl_session(bad, id=bad[:60], tags=[bad, "plain"], user=bad, conversation=bad, metadata={{bad: bad}}) as s:
    said = AIMessage(bad, tool_calls=[call], usage_metadata=dict(input_tokens=5, output_tokens=5, total_tokens=10))
    tool = dict(type="function", function=dict(name=bad, description=bad, parameters={{}}))
    Model(messages=iter([said])).invoke([SystemMessage(bad), HumanMessage(media, name="n")], temperature=bad)
    Model(messages=iter([AIMessage("x" * 3_000_000)])).invoke("y" * 300_000)
    class Broken(FakeListChatModel):
        def _call(self, *a, **k): raise ValueError(bad)
    try: Broken(responses=[bad]).invoke(bad)
    except ValueError: pass
    s.score(50, name=bad[:200])
    s.metadata({{bad: bad}})
    s.link_prompt(bad[:200], {{bad: bad}}, version=3)
assert pltrack.flush(20).pending >= 0
print(s.ids[0], s.ids[1])
"""


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Served, list[str]]]:
    """The page over a journal in which every text is hostile."""
    journal = tmp_path_factory.mktemp("hostile") / "journal.db"
    command = [sys.executable, "-c", PROGRAM]
    done = subprocess.run(command, env=environment(journal), text=True, capture_output=True, check=True, timeout=60)
    with served(journal) as found:
        yield found, done.stdout.split()


@pytest.fixture(scope="module")
def browser(page: object) -> Iterator[Any]:
    """One Chromium for all."""
    with chromium() as found:
        yield found


def test_hostile_texts_stay_texts(browser: Any, page: tuple[Served, list[str]]) -> None:
    """No script runs, nothing is asked of anybody else, no policy is broken, and the words are there to be read."""
    at, (whole, huge) = page
    with looking(browser, at) as look:
        session, name = quote(HOSTILE[:60], safe=""), quote(HOSTILE[:200], safe="")
        paths = ["/", "/?tag=" + quote(HOSTILE), "/?text=" + quote("<script>"), "/sessions", f"/sessions/{session}"]
        paths += ["/charts", "/charts?by=model", "/charts?by=tag", "/charts?by=prompt+version", "/prompts"]
        paths += [f"/prompts/{name}", "/delivery", f"/requests/{whole}", f"/requests/{huge}"]
        for path in paths:
            tab = look.go(path)
            assert tab.locator("script, iframe, object, [onerror], [onload], [href^=javascript]").count() == 0, path
            assert not {"\x1b", "\u202e", "\x07"} & set(tab.content()), path
            assert tab.locator("main").inner_text().count("1234321") == 0, path
            assert tab.evaluate("document.documentElement.scrollWidth <= innerWidth"), path
        tab = look.go(f"/requests/{whole}")
        assert "<script>alert(1)</script>" in tab.locator(".chat .output").inner_text()
        assert tab.get_by_text("https://evil.example/track.png (not loaded)").is_visible()
        assert tab.locator("main img").count() == 0
        tab = look.go("/charts?by=model")
        assert "<script>alert(1)</script>" in tab.locator(".legend").first.inner_text()


def test_a_huge_answer_is_shown_in_part(browser: Any, page: tuple[Served, list[str]]) -> None:
    """Of three million characters the beginning is shown, more can be unfolded, and the page stays light."""
    at, (_, huge) = page
    with looking(browser, at) as look:
        tab = look.go(f"/requests/{huge}")
        assert tab.get_by_text("3,000,000 characters in all").is_visible()
        assert len(tab.content()) < 1_000_000


def test_a_raw_record_is_never_a_page(browser: Any, page: tuple[Served, list[str]]) -> None:
    """The record as JSON is shown as text, too."""
    at, (whole, _) = page
    with looking(browser, at) as look:
        tab = look.go(f"/requests/{whole}.json")
        assert tab.locator("script, img, iframe").count() == 0
        assert "alert(1)" in tab.locator("body").inner_text()
