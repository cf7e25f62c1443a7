"""`pltrack ui`: the local page, as a browser and as somebody hostile meets it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
from browsers import Served, served
from langchain_core.language_models.fake_chat_models import FakeListChatModel
from langchain_core.messages import HumanMessage
from programs import run

import pltrack

HOSTILE = "<script>alert(1)</script><img src=x onerror=alert(2)> \x1b[31mred \u202egnp.exe"
PICTURE = (
    "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk"
    "+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)


@contextmanager
def visitor(page: Served) -> Iterator[httpx.Client]:
    """Return a browser that has opened the printed address."""
    with httpx.Client(base_url=page.base, follow_redirects=True) as browser:
        assert browser.get("/", params={"token": page.token}).status_code == 200
        yield browser


@pytest.fixture
def page(tmp_path: Path) -> Iterator[Served]:
    """A journal with calls in it, and its page."""
    journal = tmp_path / "journal.db"
    pltrack.configure(journal=journal, delivery="off")
    with pltrack.pl_session(HOSTILE, tags=["prod", HOSTILE], user="u-7", metadata={HOSTILE: HOSTILE}) as session:
        content = [{"type": "text", "text": HOSTILE}, {"type": "image_url", "image_url": {"url": PICTURE}}]
        FakeListChatModel(responses=[HOSTILE]).invoke([HumanMessage(content)])
        with pltrack.pl_session("inner"):
            FakeListChatModel(responses=["four"]).invoke("second")
        session.score(40, name="tone")
        session.link_prompt("greet", {"name": HOSTILE}, version=2)
    pltrack.flush(10)
    with served(journal) as page:
        yield page


def links(text: str, prefix: str) -> list[str]:
    return re.findall(rf'href="({prefix}/[^"?]+)"', text)


def test_every_view_is_served_and_nothing_hostile_runs(page: Served) -> None:
    """Each page answers 200, shows recorded text as text, and allows no script, no foreign source and no frame."""
    with visitor(page) as client:
        first = client.get("/").text
        request, session = links(first, "/requests")[-1], links(first, "/sessions")[-1]
        for path in ("/", request, "/sessions", session, "/charts", "/prompts", "/prompts/greet", "/delivery"):
            answer = client.get(path)
            assert answer.status_code == 200, path
            assert "<script" not in answer.text
            assert "<img src=x" not in answer.text
            assert not {"\x1b", "\u202e"} & set(answer.text)
            policy = answer.headers["content-security-policy"]
            assert "default-src 'none'" in policy
            assert "script-src" not in policy
            assert answer.headers["cache-control"] == "no-store"
        whole = client.get(request).text
        assert "&lt;script&gt;alert(1)&lt;/script&gt;" in whole
        assert f'src="{PICTURE}"' in whole
        assert "tone <b>40</b>" in whole
        assert "second" in client.get(session).text or "inner" in client.get(session).text


def test_filters_and_pages_are_in_the_address(page: Served) -> None:
    """A filter finds what it says, an odd one finds nothing, and no page breaks on it."""
    with visitor(page) as client:
        assert len(links(client.get("/?tag=prod").text, "/requests")) == 2
        assert len(links(client.get("/?prompt=greet@2").text, "/requests")) == 2
        assert len(links(client.get("/?text=SECOND").text, "/requests")) == 1
        for odd in (
            "/?tag=%25",
            "/?before=-1&since=x",
            "/?before=99999999999999999999",
            "/?state=%3Ci%3E",
            "/charts?since=x",
        ):
            answer = client.get(odd)
            assert answer.status_code == 200
            assert "<i>" not in answer.text
        for missing in ("/requests/nobody", "/sessions/nobody", "/prompts/nobody", "/nowhere", "/charts/x.svg"):
            assert client.get(missing).status_code == 404


def test_a_score_given_elsewhere_appears(page: Served) -> None:
    """What another program says about a request is there at the next look."""
    with visitor(page) as client:
        (found, *_) = links(client.get("/").text, "/requests")
        run(
            f"pltrack.request('{found.rpartition('/')[2]}').score(77, name='late'); pltrack.flush(5)",
            page.env,
        )
        assert "late <b>77</b>" in client.get(found).text


def test_only_with_the_token_from_here_and_to_look(page: Served) -> None:
    """No token, another host's name, another page's link, or anything but reading: refused, and nothing is shown."""
    with httpx.Client(base_url=page.base) as stranger:
        assert stranger.get("/").status_code == 403
        assert stranger.get("/", params={"token": "guess"}).status_code == 403
        assert stranger.get("/", params={"token": page.token}, headers={"host": "evil.example"}).status_code == 421
    with visitor(page) as client:
        assert client.get("/", headers={"host": "evil.example:80"}).status_code == 421
        assert client.get("/", headers={"origin": "http://evil.example"}).status_code == 403
        assert client.get("/", headers={"sec-fetch-site": "cross-site"}).status_code == 403
        for method in ("POST", "PUT", "DELETE", "PATCH", "OPTIONS"):
            assert client.request(method, "/").status_code == 405
        assert client.get("/static/../_app.py").status_code == 404
        cookie = next(each for each in client.cookies.jar if each.name.startswith("pltrack_token"))
        assert cookie.has_nonstandard_attr("HttpOnly")
        assert "token" not in str(client.get("/").url)
