"""Write the page of licences: every pinned dependency, which part of finseek brings it, and under what licence.

``python docs/licences.py [WHEEL…]``: what is not installed is read from the wheels given, or kept as the page has it.
"""

from __future__ import annotations

import re
import sys
import tomllib
from collections.abc import Iterator, Mapping
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "reference" / "licences.md"
SPELLINGS = {
    "MIT License": "MIT", "Apache": "Apache-2.0", "Apache License": "Apache-2.0", "Apache 2.0 License": "Apache-2.0",
    "Apache Software License": "Apache-2.0", "BSD License": "BSD", "3-Clause BSD License": "BSD-3-Clause",
    "Mozilla Public License 2.0 (MPL 2.0)": "MPL-2.0", "ISC License (ISCL)": "ISC",
    "Python Software Foundation License": "PSF-2.0", "Other/Proprietary License": "LicenseRef-NVIDIA-Proprietary",
    "MIT License; Apache Software License": "MIT OR Apache-2.0",
    "Public Domain; BSD License; GNU General Public License (GPL)": "Public Domain AND BSD AND GPL",
}  # fmt: skip
BY_THEIR_TEXT = {"torchao": "BSD-3-Clause", "quack-kernels": "Apache-2.0", "peewee": "MIT"}
"""Of distributions whose metadata do not say: what their licence files hold."""
CARE = re.compile(r"GPL|MPL|Proprietary|Commons|SSPL|BUSL|NonCommercial")
HEAD = """\
# Licences of the dependencies

finseek is Apache-2.0. Every version below is pinned in `constraints.txt`; `docs/licences.py` makes this page from the
metadata of the installed packages, and a test holds it against both. *Brought by* names the smallest part that needs
it: `finseek` is the plain installation, the others are extras; `build` and `test` are for work on finseek itself.

Nothing in the plain installation or in an extra restricts commercial use, except what NVIDIA licenses for its own GPUs
(extra `nemo`; and on a machine with a GPU torch brings NVIDIA's CUDA libraries). vectorbt (Apache-2.0 with Commons
Clause) is an oracle of one benchmark and of fixtures made once: no part of finseek imports it, and no extra brings it.
The extra `unsloth` has pins of its own that exclude these; it is not in the table.

`make audit` asks PyPI's advisories about every pinned version. It needs that service, not only an index, and
fails where it gets no answer.
"""


def pins() -> dict[str, str]:
    """Name and version of everything in constraints.txt."""
    text = (ROOT / "constraints.txt").read_text(encoding="utf-8")
    return {canonicalize_name(name): version for name, version in re.findall(r"^([\w.-]+)==(\S+)$", text, re.M)}


def licence_of(found: metadata.Distribution) -> str:
    """The licence that a distribution states, in SPDX's words where that is possible."""
    about = found.metadata
    classed = [c.rpartition(" :: ")[2] for c in about.get_all("Classifier") or () if c.startswith("License ::")]
    stated = about.get("License-Expression") or "; ".join(classed) or (about.get("License") or "").split("\n")[0]
    return SPELLINGS.get(stated, stated) or BY_THEIR_TEXT.get(canonicalize_name(about["Name"]), "")


def needs(found: metadata.Distribution, extras: frozenset[str]) -> Iterator[Requirement]:
    """What a distribution requires with some of its extras, here or on Linux with a GPU."""
    for line in found.requires or ():
        need = Requirement(line)
        if need.marker is None or any(need.marker.evaluate({"extra": extra}) for extra in extras | {""}):
            yield need


def closure(requirements: list[str], known: Mapping[str, metadata.Distribution]) -> set[str]:
    """Everything that requirements bring."""
    waiting, seen = [Requirement(line) for line in requirements], set()
    while waiting:
        need = waiting.pop()
        key = (canonicalize_name(need.name), frozenset(need.extras))
        if key not in seen:
            seen.add(key)
            waiting += list(needs(known[key[0]], key[1])) if key[0] in known else []
    return {name for name, _ in seen}


def parts(known: Mapping[str, metadata.Distribution]) -> dict[str, set[str]]:
    """Part of finseek: all that it brings, the plain installation first."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    extras = project["project"]["optional-dependencies"]
    found = {"finseek": closure(project["project"]["dependencies"], known)}
    for extra, lines in extras.items():
        inner = [line for name in re.findall(r"finseek\[(\w+)\]", " ".join(lines)) for line in extras[name]]
        found[extra] = closure([*inner, *(line for line in lines if not line.startswith("finseek["))], known)
    return found | {"build": closure(project["build-system"]["requires"], known)}


def kept() -> dict[str, tuple[str, str, str]]:
    """Rows of the page as it is: name to version, licence and part."""
    text = PAGE.read_text(encoding="utf-8") if PAGE.is_file() else ""
    return {
        name: (v, licence, part)
        for name, v, licence, part in re.findall(r"^\| (\S+) \| (\d\S*) \| (.+?) \| (\S+) \|$", text, re.M)
    }


def main(wheels: list[str]) -> None:
    """Write the page."""
    found = [*metadata.distributions(), *metadata.distributions(path=wheels)]
    known = {canonicalize_name(each.metadata["Name"]): each for each in found if each.metadata["Name"]}
    brought, before, rows = parts(known), kept(), []
    for name, version in sorted(pins().items()):
        part = next((part for part, names in brought.items() if name in names), "test")
        if name in known:
            rows.append((name, version, licence_of(known[name]), part))
        else:
            old = before[name]
            rows.append((name, version, old[1], old[2]))
    lines = [HEAD]
    for title, wanted in (("Copyleft or restricted", True), ("Permissive", False)):
        chosen = [row for row in rows if bool(CARE.search(row[2])) == wanted]
        lines += [f"## {title}\n", "| package | version | licence | brought by |\n| --- | --- | --- | --- |"]
        lines += [f"| {' | '.join(row)} |" for row in chosen] + [""]
    PAGE.write_text("\n".join(lines).rstrip() + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
