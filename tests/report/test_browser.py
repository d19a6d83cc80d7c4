"""The report as a reader sees it: on a phone and a screen, in light and dark, without a network."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.browser import Browser, needs_browser
from support.whole_study import whole_study

from cpsam.report.page import render_page

pytestmark = needs_browser

OVER = """[...document.querySelectorAll('svg[role=img]')].flatMap(svg => [...svg.querySelectorAll('text')].filter(text => {
  const inner = text.getBoundingClientRect(), outer = svg.getBoundingClientRect();
  return inner.left < outer.left - 6 || inner.right > outer.right + 14 || inner.bottom > outer.bottom + 2;
}).map(text => svg.id + ': ' + text.textContent))"""
SEEN = (
    "[...document.querySelectorAll('{what}')].every(e => {{ const b = e.getBoundingClientRect();"
    " return b.width > 0 && b.height > 0 }})"
)


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("page") / "report.html"
    path.write_text(render_page(whole_study()))
    return path


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    opened = Browser(tmp_path_factory.mktemp("profile"))
    yield opened
    opened.close()


@pytest.mark.parametrize("mode", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1200])
def test_everything_is_seen_and_nothing_runs_over(
    browser: Browser, page: Path, width: int, mode: str
) -> None:
    browser.show(page, width, mode)
    assert browser.ask("document.documentElement.scrollWidth") <= width, (
        "a reader would have to scroll sideways"
    )
    assert browser.ask(OVER) == []
    assert all(
        browser.ask(SEEN.format(what=what))
        for what in ("h1", "h2", "figure", "svg[role=img]", "td", ".failures tr", "pre")
    )
    assert browser.ask("document.querySelector('h1').getBoundingClientRect().top") < 200, (
        "the answer comes first"
    )
    assert browser.ask("document.querySelectorAll('svg[role=img]').length") == 1 + 2 * 8
    assert browser.ask("document.querySelectorAll('.curve').length") == 2 * (10 + 1)
    ground = browser.ask("getComputedStyle(document.body).backgroundColor")
    assert (sum(map(int, re.findall(r"\d+", ground))) < 200) == (mode == "dark")


UNDER = """[...document.querySelectorAll('svg[role=img]')].filter(svg => svg.querySelector('.interval')).flatMap(svg => {
  const box = node => node.getBoundingClientRect(), names = [...svg.querySelectorAll('text.label')];
  return names.filter(name => [...svg.querySelectorAll('.interval')].some(drawn => {
    const a = box(name), b = box(drawn);
    return a.right > b.left && b.right > a.left && a.bottom > b.top && b.bottom > a.top;
  })).map(name => svg.id + ': ' + name.textContent);
})"""


@pytest.mark.parametrize("width", [390, 1200])
def test_no_name_lies_on_an_interval(browser: Browser, page: Path, width: int) -> None:
    browser.show(page, width, "light")
    assert browser.ask("document.querySelectorAll('.interval').length") >= 3 * 4
    assert browser.ask(UNDER) == []


def test_no_line_strikes_a_name_through(browser: Browser, page: Path) -> None:
    names = "[...document.querySelectorAll('svg .label')].map(name => getComputedStyle(name))"
    halo = names + ".every(style => style.paintOrder.startsWith('stroke') && style.stroke === '{}')"
    for mode, card in (("light", "rgb(255, 255, 255)"), ("dark", "rgb(24, 28, 34)")):
        browser.show(page, 1200, mode)
        assert browser.ask(halo.format(card))


def test_facts_have_room_on_a_phone(browser: Browser, page: Path) -> None:
    browser.show(page, 390, "light")
    assert browser.ask(
        "[...document.querySelectorAll('dd')].every(e => e.getBoundingClientRect().width > 300)"
    )


def test_a_row_is_a_card_on_a_phone_and_a_row_on_a_screen(browser: Browser, page: Path) -> None:
    first = "document.querySelector('.comparison tbody tr')"
    for width, display in ((390, "block"), (1200, "table-row")):
        browser.show(page, width, "light")
        assert browser.ask(f"getComputedStyle({first}).display") == display
        assert browser.ask(f"{first}.getAttribute('role')") == "row"


def test_it_loads_nothing_and_complains_of_nothing(browser: Browser, page: Path) -> None:
    browser.show(page, 1200, "light")
    requests = [
        event["params"]["request"]["url"]
        for event in browser.events
        if event.get("method") == "Network.requestWillBeSent"
    ]
    assert requests == [page.as_uri()]
    assert not [
        event
        for event in browser.events
        if event.get("method") in ("Log.entryAdded", "Runtime.exceptionThrown")
    ]


def test_a_wide_table_scrolls_by_keyboard(browser: Browser, page: Path) -> None:
    browser.show(page, 390, "light")
    assert browser.ask(
        "[...document.querySelectorAll('.scroll')].every(e => e.tabIndex === 0 &&"
        " e.getAttribute('aria-label'))"
    )
    assert page.stat().st_size < 400_000
