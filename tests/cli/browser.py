"""A browser that opens pages, and what must hold of all of them."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Chromium from the variable CHROMIUM or the PATH."""
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    names = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
    found = os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, names)), None)
    if not found:
        pytest.skip("no Chromium: name one in CHROMIUM, or `apt-get install chromium`")
    with playwright.sync_playwright() as driver:
        chromium = driver.chromium.launch(executable_path=found)
        yield chromium
        chromium.close()


class Visit:
    """A page opened in the browser, and all that it says or asks for."""

    def __init__(self, browser: Any, path: Path, **context: Any) -> None:
        self.noise: list[str] = []
        self.requests: list[str] = []
        self.page = browser.new_page(reduced_motion="reduce", **context)
        self.page.on("console", lambda message: self.noise.append(message.text))
        self.page.on("pageerror", lambda error: self.noise.append(str(error)))
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.goto(path.as_uri())


DESKTOP = {"width": 1280, "height": 900}
PHONE = {"width": 390, "height": 844}


def check_page(visit: Visit, width: int, least: int) -> None:
    """A page's charts, of which there are so many at least, are drawn whole, and it is quiet."""
    charts = visit.page.eval_on_selector_all(
        "figure.chart svg, .stage svg",
        """all => all.map(svg => {
            const frame = svg.getBoundingClientRect();
            const marks = [...svg.querySelectorAll(".mark, .bar, .median, .line, .dots")];
            const outside = [...svg.querySelectorAll("text")].filter(text => {
                const box = text.getBoundingClientRect();
                return box.left < frame.left - 3 || box.right > frame.right + 12 ||
                    box.top < frame.top - 3 || box.bottom > frame.bottom + 3;
            });
            return {
                label: svg.getAttribute("aria-label"), width: frame.width, height: frame.height,
                drawn: marks.filter(mark => {
                    const box = mark.getBoundingClientRect();
                    return box.width > 1 || box.height > 1;
                }).length,
                outside: outside.map(text => text.textContent),
            };
        })""",
    )
    assert len(charts) >= least
    for chart in charts:
        assert chart["label"]
        assert chart["width"] > 250 and chart["height"] > 60, chart
        assert chart["drawn"] >= 1, chart
        assert chart["outside"] == [], chart
    assert visit.page.evaluate("document.documentElement.scrollWidth") <= width
    assert visit.noise == []
    assert [url for url in visit.requests if not url.startswith(("file:", "data:"))] == []
