from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from finseek.core.errors import InputError
from finseek.core.tables import read_csv


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "is empty"),
        (b"a;b\n1;2\n", "is separated by semicolons: save it with commas"),
        (b"a\tb\n1\t2\n", "is separated by tabs"),
        (b"a|b\n1|2\n", "is separated by bars"),
        ("a,b\n1,2\n".encode("utf-16"), "is UTF-16 or no text: save it as UTF-8"),
        ("a,b\n1,2\n".encode("utf-16-be"), "is UTF-16 or no text"),
        ("a,b\n1,é\n".encode("latin-1"), "is not UTF-8: save it as UTF-8"),
        (b"a,b\r1,2\r", "ends its lines with CR alone"),
        (b"a,b,a\n1,2,3\n", "has several columns 'a': keep one"),
        (b"a,b,c\n1,2,3\n1,2\n", "line 3: 2 cells where the header has 3"),
        (b'a,b,c\n"1\n1",2,3\n1\n', "line 4: 1 cells where the header has 3"),
        (b"a,b\n1,2,3\n", "more cells than its header"),
    ],
)
@pytest.mark.parametrize("packed", [False, True])
def test_what_could_be_misread_is_refused(tmp_path: Path, content: bytes, says: str, packed: bool) -> None:
    path = tmp_path / ("t.csv.gz" if packed else "t.csv")
    path.write_bytes(gzip.compress(content) if packed else content)
    with pytest.raises(InputError) as error:
        read_csv(path, "table")
    assert says in str(error.value)
    assert str(error.value).startswith(f"table {path}")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("content", [b"a,b\n1,\n\n,2\n", b"\xef\xbb\xbfa,b\r\n1,\r\n,2\r\n", b"a,b\n1,\n,2\n"])
def test_an_empty_cell_is_null_and_a_blank_line_is_none(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "t.csv").write_bytes(content)
    table = read_csv(tmp_path / "t.csv", "table")
    rows = [row for row in table.rows() if any(row)]
    assert (table.columns, rows) == (["a", "b"], [("1", None), (None, "2")])


def test_a_semicolon_in_a_cell_is_text(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("a,b;c\n1,x;y\n")
    assert read_csv(tmp_path / "t.csv", "table").rows() == [("1", "x;y")]
