"""Theses from XML: strict, without DTDs, one file at a time."""

from __future__ import annotations

import re
from collections.abc import Iterator

from lxml import etree

from finseek.theses.clean import KNOWN, Raw, field_name
from finseek.theses.options import ThesesOptions
from finseek.theses.refuse import Refused, shown

DECLARATION = re.compile(rb"""<\?xml\s(?:[^>]*?encoding\s*=\s*["']([^"'>]*)["'])?[^>]*\?>""")
_WIDE = (b"\xff\xfe", b"\xfe\xff", b"<\x00", b"\x00<", b"\x00\x00<", b"<\x00\x00\x00")
_SEVERAL_ROOTS = (etree.ErrorTypes.ERR_DOCUMENT_END, etree.ErrorTypes.ERR_RESERVED_XML_NAME)
_MALFORMED = (etree.XMLSyntaxError, OSError, ValueError, LookupError)


class _Names(dict[str, str]):
    """Canonical field names, worked out once for each spelling."""

    def __missing__(self, name: str) -> str:
        self[name] = canonical = field_name(name)
        return canonical


def xml_theses(content: bytes, name: str, options: ThesesOptions) -> Iterator[Raw]:
    """The theses of one XML file, at the root or nested, in document order.

    Text outside of theses, elements that look like a misspelt thesis and theses within theses come out as raw
    records with a problem, so that nothing is lost without a count.

    Raises:
        Refused: the file as a whole: empty, malformed, with a DOCTYPE, too deep, without any thesis.
    """
    return _walk(parse_xml(content, name), name, options)


def parse_xml(content: bytes, name: str) -> etree._Element:
    """Parse a document, or several documents one after the other in one file, strictly.

    Raises:
        Refused: with the reason, and the line where the parser gives one.
    """
    if not content.strip():
        raise Refused("empty_file", f"{name} is empty: remove it")
    if _doctype_follows(content):
        raise Refused("doctype", f"{name} has a DOCTYPE, which theses never need: remove it")
    try:
        try:
            root = etree.fromstring(content, _parser())
        except etree.XMLSyntaxError as error:
            if getattr(error, "code", None) not in _SEVERAL_ROOTS:
                raise
            root = etree.fromstring(_joined(content, error), _parser())
    except _MALFORMED as error:
        line = getattr(error, "lineno", None)
        raise Refused("malformed_xml", f"{name}: {getattr(error, 'msg', None) or error}", line) from None
    if root.getroottree().docinfo.internalDTD is not None:
        raise Refused("doctype", f"{name} has a DOCTYPE, which theses never need: remove it")
    return root


def _parser() -> etree.XMLParser:
    return etree.XMLParser(
        resolve_entities=False,
        load_dtd=False,
        no_network=True,
        huge_tree=False,
        recover=False,
        remove_comments=True,
        remove_pis=True,
    )


def _joined(content: bytes, error: etree.XMLSyntaxError) -> bytes:
    """Several UTF-8 documents of one file under one root; where that could change a text the error stands."""
    encodings = {name.upper() for name in DECLARATION.findall(content)} - {b"", b"UTF-8", b"US-ASCII"}
    if content.startswith(_WIDE) or encodings or b"<![CDATA[" in content:
        raise error
    return b"<theses>" + DECLARATION.sub(b"", content.removeprefix(b"\xef\xbb\xbf")) + b"</theses>"


def _doctype_follows(content: bytes) -> bool:
    """Whether a DOCTYPE stands before the first element; no parser sees the file before this is known."""
    if content.startswith(_WIDE):
        return b"<!DOCTYPE" in content[:65536].replace(b"\x00", b"")
    place = 3 if content.startswith(b"\xef\xbb\xbf") else 0
    while True:
        while content[place : place + 1].isspace():
            place += 1
        for start, end in ((b"<?", b"?>"), (b"<!--", b"-->")):
            if content.startswith(start, place):
                place = content.find(end, place + len(start)) + len(end)
                if place < len(end):
                    return False
                break
        else:
            return content.startswith(b"<!DOCTYPE", place)


def _walk(root: etree._Element, name: str, options: ThesesOptions) -> Iterator[Raw]:
    names = _Names()
    if names[root.tag] == "thesis":
        yield _thesis(root, None, name, 0, names)
        return
    index = 0
    open_elements = [(iter(root), _ticker_of(root, names))]
    if root.text and root.text.strip():
        yield _stray(root.text, name, index, _line(root))
        index += 1
    while open_elements:
        children, ticker = open_elements[-1]
        child = next(children, None)
        if child is None:
            open_elements.pop()
            continue
        if names[child.tag] == "thesis":
            yield _thesis(child, ticker, name, index, names)
            index += 1
        elif len(child):
            if any(names[grandchild.tag] in KNOWN - {"ticker"} for grandchild in child):
                problem = Refused("unknown_element", f"<{child.tag}> holds the fields of a thesis: call it <thesis>")
                raw = Raw({}, {}, name, index, _line(child), problem, is_xml=True)
                for path, text in _leaves(child, names, names[child.tag]):
                    _put(raw.indicators, path, text)
                yield raw
                index += 1
            else:
                if len(open_elements) >= options.max_depth:
                    raise Refused("too_deep", f"{name} nests deeper than theses.max_depth {options.max_depth}",
                                  _line(child))  # fmt: skip
                open_elements.append((iter(child), _ticker_of(child, names) or ticker))
                if child.text and child.text.strip():
                    yield _stray(child.text, name, index, _line(child))
                    index += 1
        tail = child.tail
        if tail and tail.strip():
            yield _stray(tail, name, index, _line(child))
            index += 1
    if index == 0:
        raise Refused("no_theses", f"{name} holds no <thesis>: remove it or name its elements <thesis>")


def _ticker_of(element: etree._Element, names: _Names) -> str | None:
    """The ticker that an element above theses names, as an attribute or as a child."""
    for key, value in element.attrib.items():
        if names[str(key)] == "ticker":
            return str(value)
    for child in element:
        if names[child.tag] == "ticker":
            return child.text
    return None


def _thesis(element: etree._Element, ticker: str | None, name: str, index: int, names: _Names) -> Raw:
    fields: dict[str, str] = {}
    raw = Raw(fields, {}, name, index, _line(element), is_xml=True)
    for key, value in element.items():
        _take(raw, names[str(key)], str(value))
    for child in element:
        field = names[child.tag]
        nested = len(child) > 0
        if nested:
            _take_nested(raw, field, child, names)
        elif field in KNOWN and field not in fields:
            fields[field] = child.text or ""
        else:
            _take(raw, field, child.text or "")
        if not nested:
            for key, value in child.items():
                _take(raw, f"{field}.{names[str(key)]}", str(value))
        tail = child.tail
        if tail and not tail.isspace():
            raw.problem = Refused("stray_text", f"text {shown(tail.strip())} lies between the fields: tag it")
    if element.text and not element.text.isspace():
        raw.problem = Refused("stray_text", f"text {shown(element.text.strip())} lies outside of the fields: tag it")
    if ticker is not None:
        own = fields.setdefault("ticker", ticker)
        if own is not ticker and own.strip().upper() != ticker.strip().upper():
            raw.problem = Refused("conflicting_ticker", f"ticker {shown(own)} lies under {shown(ticker)}: keep one")
    return raw


def _take(raw: Raw, field: str, text: str) -> None:
    """Keep one value; a second one of a known field is a problem, a second indicator gets a number."""
    if field not in KNOWN:
        _put(raw.indicators, field, text)
    elif field in raw.fields:
        raw.problem = Refused("duplicate_field", f"{field} occurs twice: keep one")
        _put(raw.indicators, field, text, count=2)
    else:
        raw.fields[field] = text


def _take_nested(raw: Raw, field: str, element: etree._Element, names: _Names) -> None:
    if field in KNOWN or field == "thesis":
        reason = "nested_thesis" if field == "thesis" else "markup_in_text"
        raw.problem = Refused(reason, f"<{field}> holds elements of its own: escape or remove them")
    # An <indicators> wrapper is a folder and no name; a known name in it would read like a field and keeps its path.
    for path, text in _leaves(element, names, field):
        inner = path.removeprefix("indicators.")
        _put(raw.indicators, path if inner in KNOWN else inner, text)


def _put(indicators: dict[str, str], name: str, text: str, count: int = 1) -> None:
    numbered = name if count == 1 else f"{name}.{count}"
    while numbered in indicators:
        count += 1
        numbered = f"{name}.{count}"
    indicators[numbered] = text


def _leaves(element: etree._Element, names: _Names, path: str) -> Iterator[tuple[str, str]]:
    """Text and attributes at and below an element, by dotted path; libxml2 limits the depth to 256."""
    for key, value in element.attrib.items():
        yield f"{path}.{names[str(key)]}", str(value)
    for text in (element.text, *(child.tail for child in element)):
        if text and text.strip():
            yield path, text.strip()
    for child in element:
        yield from _leaves(child, names, f"{path}.{names[child.tag]}")


def _stray(text: str, name: str, index: int, line: int | None) -> Raw:
    problem = Refused("stray_text", f"text {shown(text.strip())} lies outside of every thesis: remove or tag it")
    return Raw({}, {"text": text}, name, index, line, problem, is_xml=True)


def _line(element: etree._Element) -> int | None:
    line: int | None = element.sourceline  # type: ignore[assignment]  # the stubs leave its type open
    return line
