"""`pltrack ui` in a real browser: every view by clicking, on a journal and on a hub; keyboard, phone, no JavaScript."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from audits import faults_of
from browsers import DESK, PHONE, VIEWS, Look, Served, chromium, looking, recorded, served


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Served, list[str]]]:
    """The page over a day in a shop, and ids of requests worth looking at."""
    journal = tmp_path_factory.mktemp("shop") / "journal.db"
    ids = recorded(journal)
    with served(journal) as page:
        yield page, ids


@pytest.fixture(scope="module")
def browser(shop: object) -> Iterator[Any]:
    """One Chromium for all; the day is recorded before it starts."""
    with chromium() as found:
        yield found


def walk(look: Look, prefix: str) -> None:
    """Click through every view."""
    tab = look.tab
    look.shoot(f"{prefix}requests")
    tab.get_by_role("link", name="Do you have one like this?").click()
    tab.get_by_role("heading", name="Conversation").wait_for()
    assert tab.get_by_role("img", name="picture in the user message").bounding_box()["width"] > 40
    assert tab.locator(".chat .output").get_by_text("look_up_stock").is_visible()
    assert tab.locator(".tiles").get_by_text("helpful 93").is_visible()
    look.shoot(f"{prefix}request")
    tab.get_by_role("link", name="picture search").click()
    assert tab.locator(".timeline rect").count() == 4
    look.shoot(f"{prefix}session")
    tab.get_by_role("navigation", name="Views").get_by_role("link", name="Sessions").click()
    tab.get_by_role("link", name="visit", exact=True).first.click()
    assert tab.locator(".timeline th[scope=row]").all_inner_texts()[0].startswith("visit")
    tab.go_back()
    look.shoot(f"{prefix}sessions")
    tab.get_by_role("link", name="Charts").click()
    assert tab.get_by_role("img", name=re.compile("^Calls over the last day")).is_visible()
    assert tab.locator("svg.chart").count() == 6
    look.shoot(f"{prefix}charts")
    tab.get_by_label("Split by").select_option("model")
    tab.get_by_role("button", name="Show").click()
    assert tab.locator(".legend").first.get_by_text("gpt-4o-mini").is_visible()
    tab.get_by_role("link", name="Prompts").click()
    look.shoot(f"{prefix}prompts")
    tab.get_by_role("link", name="shop-answer").click()
    if not prefix:  # versions are kept where they were fetched
        assert tab.locator(".diff .added").inner_text().endswith("Answer in one sentence, warmly.")
    assert tab.get_by_role("row", name=re.compile("^Version 2 .*15")).is_visible()
    look.shoot(f"{prefix}prompt")
    tab.get_by_role("link", name="Delivery").click()
    look.shoot(f"{prefix}delivery")


def test_every_view_by_clicking(browser: Any, shop: tuple[Served, list[str]]) -> None:
    """Each view is reached by links and shows what was recorded; what the server said is on the delivery page."""
    with looking(browser, shop[0]) as look:
        walk(look, "")
        tab = look.tab
        assert tab.get_by_text("1 refused for good.").is_visible()
        assert tab.get_by_role("row", name=re.compile("422 model 'tiny-0' is not known")).is_visible()
        assert tab.get_by_role("row", name=re.compile("503 upstream is restarting")).is_visible()
        tab.get_by_role("link", name="What comes after 1, 2, 3?").click()
        assert tab.locator("q", has_text="422 model 'tiny-0' is not known").first.is_visible()


@pytest.mark.slow
def test_every_view_on_a_hub(browser: Any, tmp_path: Path, hub_url: str) -> None:
    """The same views show what a hub holds."""
    recorded(tmp_path / "app.db", hub_url)
    with served(tmp_path / "nothing-here.db", PLTRACK_HUB=hub_url) as page, looking(browser, page) as look:
        walk(look, "hub-")
        assert look.tab.locator(".place").inner_text().startswith("postgresql")


def test_filters_are_in_the_address_and_can_be_taken_back(browser: Any, shop: tuple[Served, list[str]]) -> None:
    """A filter is typed or clicked, narrows the list, stands in the address and is taken back by a click."""
    with looking(browser, shop[0]) as look:
        tab = look.tab
        tab.get_by_label("Text or id").fill("overloaded")
        tab.keyboard.press("Enter")
        tab.wait_for_url(re.compile("text=overloaded"))
        assert tab.locator("tbody tr").count() == 5
        assert {each.lower() for each in tab.locator("tbody .badge").all_inner_texts()} == {"error"}
        tab.get_by_role("link", name="Remove the filter text overloaded").click()
        assert tab.locator("tbody tr").count() == 50
        tab.get_by_role("link", name="Older").click()
        assert tab.locator("tbody tr").count() == 19
        tab.get_by_role("link", name="Newest").click()
        tab.get_by_role("link", name="vision").first.click()
        assert tab.locator("tbody tr").count() == 3
        tab.get_by_label("Text or id").fill(shop[1][0])
        tab.get_by_role("button", name="Show").click()
        tab.get_by_role("link", name=shop[1][0], exact=True).click()
        assert tab.url.endswith(f"/requests/{shop[1][0]}")


def test_a_score_given_on_the_command_line_appears(browser: Any, shop: tuple[Served, list[str]]) -> None:
    """`pltrack score ID 90 --name tone`, and the next look shows it: on the request, in the list, in the charts."""
    page, ids = shop
    with looking(browser, page) as look:
        tab = look.go(f"/requests/{ids[1]}")
        assert tab.get_by_text("tone").count() == 0
        command = [sys.executable, "-m", "pltrack", "score", ids[1], "90", "--name", "tone"]
        subprocess.run(command, env=page.env, check=True, capture_output=True, timeout=60)
        tab.reload()
        assert tab.locator(".tiles").get_by_text("tone 90").is_visible()
        look.go("/?tag=vision")
        assert tab.get_by_role("row", name=re.compile("Yes, twelve of them.*tone 90")).is_visible()
        look.go("/charts?tag=vision")
        assert tab.get_by_role("img", name="Mean score over the last day: score 92").is_visible()


def test_a_keyboard_is_enough(browser: Any, shop: tuple[Served, list[str]]) -> None:
    """Tab goes from the skip link through the views to the filters and the list, and always shows where it is."""
    with looking(browser, shop[0]) as look:
        tab = look.tab
        tab.keyboard.press("Tab")
        assert tab.locator(":focus").inner_text() == "Skip to the content"
        assert tab.locator(":focus").bounding_box()["x"] >= 0
        order = []
        for _ in range(16):
            tab.keyboard.press("Tab")
            focused = tab.evaluate(
                "() => { const e = document.activeElement, s = getComputedStyle(e);"
                " return [e.innerText || e.name || '', s.outlineStyle, parseFloat(s.outlineWidth)] }"
            )
            assert focused[1] != "none", focused
            assert focused[2] >= 2, focused
            order.append(focused[0])
        views = ["pltrack", "Requests", "Sessions", "Charts", "Prompts", "Delivery"]
        assert order[: len(views)] == views
        assert order[len(views) : len(views) + 3] == ["text", "model", "tag"]
        assert order[-1] == "night shift" or "What is late?" in order
        tab.goto(look.at.base)
        tab.keyboard.press("Tab")
        tab.keyboard.press("Enter")
        tab.keyboard.press("Tab")
        assert tab.locator(":focus").get_attribute("name") == "text"
        tab.keyboard.type("late")
        tab.keyboard.press("Enter")
        tab.wait_for_url(re.compile("text=late"))
        tab.get_by_role("link", name="What is late?").focus()
        tab.keyboard.press("Enter")
        tab.get_by_role("heading", name="Conversation").wait_for()


def test_a_phone_scrolls_in_one_direction(browser: Any, shop: tuple[Served, list[str]]) -> None:
    """At 375 points no view is wider than the screen."""
    page, ids = shop
    with looking(browser, page, viewport=PHONE) as look:
        session = look.tab.locator('a[href^="/sessions/"]').nth(2).get_attribute("href")
        for path in (*VIEWS, f"/requests/{ids[0]}", f"/requests/{ids[2]}", session):
            tab = look.go(path)
            assert tab.evaluate("document.documentElement.scrollWidth") <= PHONE["width"], path
            look.shoot(f"phone{re.sub('[^a-z]+', '-', path)[:24]}")


def test_javascript_is_not_needed(browser: Any, shop: tuple[Served, list[str]]) -> None:
    """With JavaScript switched off, links, forms and folded parts work as they do with it."""
    with looking(browser, shop[0], java_script_enabled=False) as look:
        tab = look.tab
        tab.get_by_text("More", exact=True).click()
        tab.get_by_label("User").fill("u-3")
        tab.get_by_role("button", name="Show").click()
        assert "user=u-3" in tab.url
        tab.get_by_role("link", name="Do you have one like this?").click()
        tab.get_by_text("1 tool offered").click()
        assert tab.get_by_text("How many of a thing are in stock.").is_visible()
        tab.get_by_role("link", name="Charts").click()
        assert tab.locator("svg.chart").count() == 6


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_everything_has_a_name_and_can_be_read(browser: Any, shop: tuple[Served, list[str]], scheme: str) -> None:
    """On every view: names for what can be used, alternatives for pictures, headings in order, enough contrast."""
    page, ids = shop
    with looking(browser, page, color_scheme=scheme, viewport=DESK) as look:
        session = look.tab.locator('a[href^="/sessions/"]').nth(2).get_attribute("href")
        for path in (*VIEWS, f"/requests/{ids[0]}", f"/requests/{ids[2]}", session, "/?text=nothing-has-this"):
            assert faults_of(look.go(path)) == [], path
