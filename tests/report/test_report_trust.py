"""report.html asks the network for nothing, whatever the records say."""

from __future__ import annotations

import base64
import html.parser
import re
from pathlib import Path
from typing import Any

from report_records import prefill, values, write

from attnsweep.errors import Status
from attnsweep.report.cli import main

#: A user's text that would fetch something wherever it stood unescaped.
FETCH = (
    "<img src=http://a.example/x> <link href='//b.example/x'> <style>@import 'https://c.example'; "
    "p { background: url(http://d.example/x) }</style> <svg><use href='http://e.example/x'/></svg> http://f.example"
)
#: Attributes whose value a browser may fetch.
FETCHED = {
    "src",
    "srcset",
    "href",
    "xlink:href",
    "action",
    "formaction",
    "data",
    "poster",
    "background",
    "ping",
    "style",
}


class Requests(html.parser.HTMLParser):
    """What a browser would fetch of a page or an SVG file: addresses outside it."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.found: list[str] = []
        self.images: list[str] = []
        self.styling = False
        self.feed(source)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.styling = tag == "style"
        for name, value in attrs:
            text = (value or "").strip()
            if text.startswith("data:image/svg+xml;base64,"):
                self.images.append(base64.b64decode(text.partition(",")[2]).decode())
            elif name in FETCHED and not text.startswith(("#", "data:")):
                self.style(text) if name in ("style",) else self.found.append(text)
        if tag in ("script", "link", "base", "iframe", "object", "embed"):
            self.found.append(tag)

    handle_startendtag = handle_starttag

    def handle_data(self, data: str) -> None:
        if self.styling:
            self.style(data)

    def handle_endtag(self, tag: str) -> None:
        self.styling = False

    def style(self, text: str) -> None:
        """Add what a style sheet would fetch."""
        self.found += [
            one for one in re.findall(r"url\(\s*['\"]?([^)'\"]*)", text) if not one.startswith(("#", "data:"))
        ]
        self.found += re.findall(r"@import[^;]*", text)


def test_the_search_finds_each_way() -> None:
    """A search that finds nothing anywhere proves nothing."""
    found = Requests(FETCH).found
    for host in "abcde":
        assert any(f"{host}.example" in one for one in found), host
    assert not any("f.example" in one for one in found)


def test_the_page_and_its_images_fetch_nothing(tmp_path: Path) -> None:
    """Not in a tag, a style or an image of it, for records full of addresses."""
    hostile: dict[str, Any] = dict.fromkeys(("impl", "variant", "scenario", "reason", "sweep", "gpu_name"), FETCH)
    point = prefill(1, 2048)
    rows = [values(point, "fa2"), values(point, FETCH)]
    rows += [values(point, "naive", status=status) | hostile for status in Status if status is not Status.OK]
    write(tmp_path, [row | {"cell_id": str(number)} for number, row in enumerate(rows)])
    assert main([str(tmp_path)]) == 0
    page = Requests((tmp_path / "report" / "report.html").read_text())
    assert page.found == []
    assert page.images
    assert [one for image in page.images for one in Requests(image).found] == []
