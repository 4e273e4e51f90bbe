"""Imports go strictly down, never within a level, function bodies included."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import finseek

ROOT = Path(finseek.__file__).parent
LEVELS = {
    "cli": 7,
    "pipeline": 6,
    "doctor": 6,
    "report": 5,
    "audit": 5,
    "train": 4,
    "evaluate": 4,
    "backtest": 4,
    "samples": 3,
    "checkpoint": 3,
    "theses": 2,
    "market": 2,
    "model": 2,
    "stats": 1,
    "core": 0,
}
HEAVY_ALLOWED = {
    "torch": {"model", "checkpoint", "train", "evaluate"},
    "httpx": {"market", "evaluate"},
}
LATE_ROOMS = ("train/engines/", "evaluate/backends/", "market/providers/")  # loaded by name, so their tops are late
LATE = {"transformers", "datasets", "pandas", "peft", "numba", "lightning", "trl", "nemo_automodel", "sklearn", "arch"}


def imports_of(source: str, package: str) -> Iterator[tuple[int, str, bool]]:
    """Line, dotted module and whether it stands at the top, for every import of a file."""
    tree = ast.parse(source)
    top = {id(node) for node in tree.body}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, alias.name, id(node) in top
        elif isinstance(node, ast.ImportFrom):
            module = node.module or ""
            if node.level:
                module = ".".join(
                    filter(None, [*package.split(".")[: len(package.split(".")) - node.level + 1], module])
                )
            if module == "finseek":
                for alias in node.names:
                    yield node.lineno, f"finseek.{alias.name}", id(node) in top
            else:
                yield node.lineno, module, id(node) in top


def arrows_up(source: str, package: str, own: str) -> list[str]:
    """Imports that break the rule of the layers."""
    wrong = []
    for line, module, _ in imports_of(source, package):
        parts = module.split(".")
        if parts[0] != "finseek" or len(parts) == 1 or parts[1].startswith("__"):
            continue
        if parts[1] not in LEVELS:
            wrong.append(f"line {line}: {module} is in no layer")
        elif parts[1] != own and LEVELS[parts[1]] >= LEVELS[own]:
            wrong.append(f"line {line}: {own} (level {LEVELS[own]}) imports {parts[1]} (level {LEVELS[parts[1]]})")
    return wrong


def sources() -> list[Path]:
    return sorted(path for path in ROOT.rglob("*.py") if path.parent != ROOT or path.stem == "doctor")


def layer(path: Path) -> str:
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


def package(path: Path) -> str:
    return ".".join(("finseek", *path.relative_to(ROOT).parent.parts))


@pytest.mark.parametrize("path", sources(), ids=lambda path: path.relative_to(ROOT).as_posix())
def test_imports_go_down(path: Path) -> None:
    assert arrows_up(path.read_text(), package(path), layer(path)) == []


@pytest.mark.parametrize("path", sources(), ids=lambda path: path.relative_to(ROOT).as_posix())
def test_heavy_parts_stay_where_they_belong(path: Path) -> None:
    late_room = path.relative_to(ROOT).as_posix().startswith(LATE_ROOMS)
    for line, module, top in imports_of(path.read_text(), package(path)):
        name = module.split(".")[0]
        assert layer(path) in HEAVY_ALLOWED.get(name, {layer(path)}), f"line {line}: {name} in {layer(path)}"
        assert late_room or not (top and name in LATE), (
            f"line {line}: {name} is imported at the top; import it where it is needed"
        )


def test_the_rule_itself_finds_an_arrow_in_a_function_body() -> None:
    source = "def f():\n    from finseek.pipeline import run\n"
    assert arrows_up(source, "finseek.market", "market") == ["line 2: market (level 2) imports pipeline (level 6)"]
    assert arrows_up("from ..theses import x\n", "finseek.market", "market")
    assert arrows_up("from finseek.theses import x\n", "finseek.market", "market")
    assert not arrows_up("from finseek.core import x\n", "finseek.market", "market")


def test_every_package_has_a_level() -> None:
    packages = {path.name for path in ROOT.iterdir() if path.is_dir() and path.name != "__pycache__"}
    assert packages <= set(LEVELS)
