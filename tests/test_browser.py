"""The helper that opens pages: what it must not overlook."""

from tests import browser


def test_errors_of_a_page_are_seen(tmp_path):
    path = tmp_path / "page.html"
    path.write_text(
        "<title>A title</title><p id=x>text</p><img src=missing.png>"
        "<script>console.error('of the console'); console.log('harmless');</script>"
        "<script>throw new Error('of a script')</script>"
    )
    with browser.opened(path.as_uri()) as page:
        assert page.title() == "A title"
        assert page.viewport_size["width"] == 900
        assert page.locator("#x").bounding_box()["height"] > 0
        text = "\n".join(page.errors)
        assert "of the console" in text and "of a script" in text
        assert f"failed: {(tmp_path / 'missing.png').as_uri()}" in page.errors
        assert "harmless" not in text
        assert path.as_uri() in page.requests


def test_a_page_without_errors_has_none(tmp_path):
    path = tmp_path / "page.html"
    path.write_text("<p>text</p>")
    with browser.opened(path.as_uri(), width=500) as page:
        assert page.errors == []
        assert page.evaluate("window.innerWidth") == 500
