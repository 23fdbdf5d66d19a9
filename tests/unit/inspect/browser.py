"""A real browser for the tests of pages: Debian's chromium, or the program that MINITX_CHROMIUM names."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from playwright.sync_api import Browser, Page, sync_playwright


@contextmanager
def chromium() -> Iterator[Browser]:
    """Starts the browser.

    Raises:
        FileNotFoundError: there is none.
    """
    program = os.environ.get("MINITX_CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
    if program is None:
        raise FileNotFoundError(
            "no Chromium: install it (apt-get install chromium), or name one in MINITX_CHROMIUM"
        )
    with sync_playwright() as playwright:
        # Root, as in containers, has no sandbox; /dev/shm is small there.
        options = ["--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu"]
        browser = playwright.chromium.launch(executable_path=program, args=options)
        yield browser
        browser.close()


@contextmanager
def opened(browser: Browser, url: str, **options: Any) -> Iterator[Page]:
    """Opens a page; nothing but its own address can be reached, and a message on its console is an error.

    The messages so far are `page.problems`.

    Args:
        browser: from `chromium`.
        url: the address, of a file or of a server on this machine.
        options: of the context, such as `viewport` and `color_scheme`.
    """
    context = browser.new_context(**{"viewport": {"width": 1280, "height": 900}, **options})
    problems: list[str] = []
    own = url.split("?")[0].rstrip("/")

    def _route(route: Any) -> None:
        address = route.request.url
        if address.split("?")[0].startswith((own, "data:")):
            route.continue_()
        else:
            problems.append(f"request of {address[:100]}")
            route.abort()

    context.route("**/*", _route)
    page = context.new_page()
    page.problems = problems  # type: ignore[attr-defined]
    page.on("console", lambda message: problems.append(message.text))
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.goto(url)
    page.wait_for_selector("html[data-ready]", timeout=60_000)
    yield page
    context.close()
    assert not problems


def until(page: Page, condition: str) -> None:
    """Waits until an expression is true; the page's policy allows playwright's own way of waiting no `eval`.

    Raises:
        TimeoutError: it was not for 30 seconds.
    """
    end = time.monotonic() + 30
    while not page.evaluate(condition):
        if time.monotonic() > end:
            raise TimeoutError(f"not true after 30 seconds: {condition}")
        page.wait_for_timeout(20)
