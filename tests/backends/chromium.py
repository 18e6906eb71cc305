"""Debian's Chromium, with nothing kept from one test to the next, and axe-core."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from shutil import which
from typing import Any

from playwright.sync_api import Browser, Page, sync_playwright

from . import NotInstalled, home

# It asks nothing of the outside on its own.
ARGUMENTS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


@contextmanager
def running() -> Iterator[Browser]:
    """Run the browser, with a profile of its own, until the block ends."""
    home("chromium")
    path = which("chromium")
    if path is None:
        raise NotInstalled("chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=ARGUMENTS)
        try:
            yield browser
        finally:
            browser.close()


def barriers(page: Page) -> list[str]:
    """Return what axe-core finds on the page that keeps people out, a line each."""
    # By the debugger, as the page's own policy keeps other scripts out.
    page.evaluate((home("chromium") / "node_modules/axe-core/axe.min.js").read_text())
    found: dict[str, Any] = page.evaluate("axe.run()")
    return [
        f"{each['id']}: {each['help']}: {json.dumps([node['html'] for node in each['nodes']])}"
        for each in found["violations"]
    ]
