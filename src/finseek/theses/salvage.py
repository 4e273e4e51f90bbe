"""The whole theses of a broken XML file, each parsed strictly by itself; the rest is refused piece by piece."""

from __future__ import annotations

import re
from collections.abc import Iterator

from finseek.theses.clean import Raw
from finseek.theses.options import ThesesOptions
from finseek.theses.refuse import Refused
from finseek.theses.xml import DECLARATION, parse_xml, xml_theses

_TOKEN = re.compile(
    rb"<!--.*?-->|<!\[CDATA\[.*?\]\]>|<\?.*?\?>|(?P<open><(?:\w+:)?thesis(?=[\s>/])[^<>]*>)"
    rb"|(?P<close></(?:\w+:)?thesis\s*>)|(?P<above><(?:\w+:)?stock[-_]theses(?=[\s>])[^<>]*>)|(?P<trouble><!--|<!\[CDATA\[|<!D)",
    re.DOTALL,
)


def salvaged_theses(content: bytes, name: str, options: ThesesOptions) -> Iterator[Raw]:
    """The theses of a file that is not well-formed, in order.

    A thesis is certain if ``<thesis …>`` to the next ``</thesis>`` is well-formed and the element above it can be
    read; nothing is repaired. An unfinished comment or CDATA section ends the search, for what follows may be
    no thesis at all.

    Raises:
        Refused: not one whole thesis is there.
    """
    above = b"<theses>"
    start: int | None = None
    index = 0
    for token in _TOKEN.finditer(content):
        if token["trouble"]:
            begin = token.start() if start is None else start
            yield _lost(content, name, index, begin, len(content), "an unfinished section: what follows is unread")
            return
        if token["above"] and start is None:
            above = token["above"]
        elif token["open"]:
            if start is not None:
                yield _lost(content, name, index, start, token.start())
                index += 1
            start = token.start()
            if token["open"].endswith(b"/>"):
                start = None
        elif token["close"] and start is not None:
            yield _strict(content, above, name, index, start, token.end(), options)
            index += 1
            start = None
    if start is not None:
        yield _lost(content, name, index, start, len(content))
        index += 1
    if index == 0:
        raise Refused("malformed_xml", f"{name} is malformed and holds no whole thesis")


def _strict(content: bytes, above: bytes, name: str, index: int, start: int, end: int, options: ThesesOptions) -> Raw:
    root = re.match(rb"<([\w:-]+)", above)
    assert root is not None, "the pattern of an element above begins with a name"
    declared = DECLARATION.match(content.removeprefix(b"\xef\xbb\xbf"))
    piece = (declared[0] if declared else b"") + above + content[start:end] + b"</" + root[1] + b">"
    line = content.count(b"\n", 0, start) + 1
    try:
        parse_xml(piece, name)
        (raw,) = xml_theses(piece, name, options)
    except Refused as refused:
        text = content[start:end].decode("utf-8", "backslashreplace")
        return Raw({}, {"text": text}, name, index, line, Refused(refused.reason, refused.detail, line))
    raw.index, raw.line, raw.salvaged = index, line, True
    return raw


def _lost(content: bytes, name: str, index: int, start: int, end: int, what: str = "a thesis without its end") -> Raw:
    line = content.count(b"\n", 0, start) + 1
    text = content[start:end].decode("utf-8", "backslashreplace")
    return Raw({}, {"text": text}, name, index, line, Refused("malformed_xml", what, line))
