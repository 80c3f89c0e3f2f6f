"""Opens pages in headless Chromium, the system's own; tests that need it are skipped without one.

    with browser.opened("file:///…/report.html") as page:
        assert page.errors == []

`page` is Playwright's, with the attributes `errors` and `requests`. Debian's package is `chromium`.
"""

import contextlib
import shutil

import pytest

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-sync"),
    *("--disable-background-networking", "--disable-component-update"),
)
SECONDS = 60  # until a page has loaded, on a busy machine


@contextlib.contextmanager
def opened(url, width=900, height=1200, until="load"):
    """The page at a URL, after it has loaded.

    Its attribute `errors` lists what the console, a script or a request that failed reported; `requests`
    lists the URLs that were requested. Both grow while the page is used.

    Args:
      url: `file:` or `http:`.
      width, height: of the window, in pixels.
      until: Playwright's event to wait for: `load`, or `networkidle` for pages that fetch their content.
    """
    if CHROMIUM is None:
        pytest.skip("Chromium is not installed: apt-get install chromium")
    playwright = pytest.importorskip("playwright.sync_api", reason="needs lotcal-tf[test]")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=list(FLAGS))
        try:
            page = browser.new_page(viewport={"width": width, "height": height})
            page.set_default_timeout(1000 * SECONDS)
            page.errors, page.requests = [], []
            page.on("console", lambda m: page.errors.append(m.text) if m.type == "error" else None)
            page.on("pageerror", lambda error: page.errors.append(str(error)))
            page.on("requestfailed", lambda request: page.errors.append(f"failed: {request.url}"))
            page.on("request", lambda request: page.requests.append(request.url))
            page.goto(url, wait_until=until)
            yield page
        finally:
            browser.close()
