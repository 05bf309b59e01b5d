"""The overview as a picture: the page itself, as a browser shows it.

A browser draws it since the page is made for one: what is sent around is then the same as what a reader of
the page sees, fonts and colours included, and there is no second drawing to keep like the first.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

from .browser import BrowserError, chromium

WIDTH, SCALE = 1200, 2
WAIT_MS = 60_000


def png(page: str, dark: bool = False, width: int = WIDTH) -> bytes:
    """The head, the comparisons and the overview of a page as PNG bytes.

    Args:
        page: what `html.page` returned.
        dark: in the dark colours.
        width: in CSS pixels; the picture has twice as many.

    Raises:
        BrowserError: there is no browser, or it could not show the page.
    """
    with tempfile.TemporaryDirectory(prefix="kernelwright-report-") as folder, chromium() as browser:
        file = Path(folder) / "page.html"
        file.write_text(page, encoding="utf-8")
        from playwright.sync_api import Error

        try:
            tab = browser.new_page(
                viewport={"width": width, "height": 800},
                device_scale_factor=SCALE,
                color_scheme="dark" if dark else "light",
                offline=True,
            )
            tab.goto(file.as_uri())
            tab.wait_for_selector("html[data-ready]", state="attached", timeout=WAIT_MS)
            tab.evaluate("document.documentElement.classList.add('picture')")
            tab.evaluate("$$('.figure').filter((box) => box.checkVisibility()).forEach(draw)")
            picture: bytes = tab.screenshot(full_page=True, timeout=WAIT_MS)
        except Error as error:
            raise BrowserError(
                f"the browser could not show the page: {error.message.splitlines()[0]}"
            ) from None
    return picture
