"""One HTML page that needs no other file: tables, and pictures inside of it."""

from __future__ import annotations

import base64
import html
from collections.abc import Sequence
from pathlib import Path

__all__ = ["picture", "table", "write_page"]

PIXELS = 1.6  # of a picture for one of the page, so that letters have the size of those of the text
_STYLE = (
    "body{font:14px sans-serif;max-width:1100px;margin:2em auto;padding:0 1em;color:#222}"
    "img{max-width:100%;display:block}"
    "table{border-collapse:collapse;margin:1em 0}"
    "td,th{padding:2px 12px;text-align:right;border-bottom:1px solid #ddd}"
    "td:first-child,th:first-child{text-align:left}p{line-height:1.45}"
)


def table(cells: Sequence[Sequence[str]]) -> str:
    """Return a table of text; its first row is the head."""
    head, *body = cells
    rows = ["<tr>" + "".join(f"<th>{html.escape(cell)}</th>" for cell in head) + "</tr>"]
    rows += ["<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in row) + "</tr>" for row in body]
    return "<table>" + "".join(rows) + "</table>"


def picture(path: Path, text: str = "") -> str:
    """Return a PNG file as an image that is part of the page; `text` says what it shows where it cannot be seen."""
    content = path.read_bytes()
    width = round(int.from_bytes(content[16:20], "big") / PIXELS)  # bytes 16 to 19 of a PNG file
    encoded = base64.b64encode(content).decode()
    return f'<img alt="{html.escape(text)}" width="{width}" src="data:image/png;base64,{encoded}">'


def write_page(path: Path, title: str, parts: Sequence[str]) -> None:
    """Write the page, complete or not at all; `parts` are HTML, the heading is made of `title`."""
    name = html.escape(title)
    page = (
        f'<!doctype html><meta charset="utf-8"><title>{name}</title><style>{_STYLE}</style><h1>{name}</h1>'
        f"{''.join(parts)}\n"
    )
    part = path.with_name(path.name + ".part")
    part.write_text(page, encoding="utf-8")
    part.replace(path)
