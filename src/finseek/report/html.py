"""From a page's view model to one HTML text that needs nothing else.

The page forbids itself the network and every script but its own (Content-Security-Policy with the script's hash), so
that text from the data could not act even if an escape were forgotten.
"""

from __future__ import annotations

import base64
import hashlib
import re
from functools import cache
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape

from finseek.report.view import Page

TEMPLATES = Path(__file__).parent / "templates"
_DATE = re.compile(r"\d{4}-\d{2}-\d{2}")
_SLASH = re.compile(r"/(?=.)")


def breaking(text: str) -> Markup:
    """The text with its dates kept on one line, and free to break after a slash of a path."""
    return Markup(_DATE.sub(r'<span class="date">\g<0></span>', _SLASH.sub("/<wbr>", str(escape(text)))))


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["breaking"] = breaking
    return environment


def render(page: Page) -> str:
    """The page as one self-contained HTML document."""
    style = (TEMPLATES / "style.css").read_text("utf-8")
    script = (TEMPLATES / "script.js").read_text("utf-8")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return (
        _environment()
        .get_template("page.html.j2")
        .render(page=page, style=Markup(style), script=Markup(script), script_hash=Markup(f"sha256-{digest}"))
    )
