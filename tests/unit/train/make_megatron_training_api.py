"""Refresh megatron_training_api.json: what the published wheel says of each thing that the engine's program calls.

    pip download --no-deps --ignore-requires-python megatron-bridge==0.6.2
    python tests/unit/train/make_megatron_training_api.py megatron_bridge-0.6.2-*.whl

Nothing is imported or executed from the wheel. Kept for each imported name: its module, its parameters or fields, and,
since some fields are inherited from Megatron-Core, the keywords that the wheel's own code passes to it.
"""

from __future__ import annotations

import ast
import json
import sys
import zipfile
from pathlib import Path
from typing import Any

PROGRAM = Path(__file__).resolve().parents[3] / "src" / "finseek" / "train" / "engines" / "megatron_program.py"
MODEL_FIELDS = ("moe_router_bias_update_rate", "moe_aux_loss_coeff", "mtp_loss_scaling_factor", "seq_length")


def imported(program: ast.Module) -> dict[str, str]:
    """Names that the program imports from the wheel, with their modules."""
    nodes = [node for node in program.body if isinstance(node, ast.ImportFrom) and node.module]
    return {a.name: n.module for n in nodes if n.module.startswith("megatron.bridge.") for a in n.names}


def described(tree: ast.Module, name: str) -> dict[str, Any]:
    """Parameters of a function, or fields of a class; nothing of what the module has from elsewhere."""
    found = [n for n in tree.body if isinstance(n, ast.ClassDef | ast.FunctionDef) and n.name == name]
    if not found:
        assert any(a.name == name for n in tree.body if isinstance(n, ast.ImportFrom) for a in n.names)
        return {"kind": "import", "names": [], "required": []}
    node = found[0]
    if isinstance(node, ast.FunctionDef):
        defaults = len(node.args.defaults)
        names = [arg.arg for arg in node.args.args]
        return {"kind": "function", "names": names, "required": names[: len(names) - defaults]}
    fields = [each for each in node.body if isinstance(each, ast.AnnAssign) and isinstance(each.target, ast.Name)]
    return {
        "kind": "class",
        "names": [each.target.id for each in fields],
        "required": [each.target.id for each in fields if each.value is None],
    }


def main(wheel: str) -> None:
    """Parse the wheel."""
    with zipfile.ZipFile(wheel) as archive:
        files = {name: ast.parse(archive.read(name)) for name in archive.namelist() if name.endswith(".py")}
    wanted = imported(ast.parse(PROGRAM.read_text()))
    used: dict[str, set[str]] = {name: set() for name in wanted}
    attributes: set[str] = set()
    for tree in files.values():
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in used:
                used[node.func.id] |= {word.arg for word in node.keywords if word.arg}
            if isinstance(node, ast.Attribute):
                attributes.add(node.attr)
            if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
                attributes.add(node.target.id)
            if isinstance(node, ast.keyword) and node.arg:
                attributes.add(node.arg)
    api = {}
    for name, module in sorted(wanted.items()):
        base = module.replace(".", "/")
        path = f"{base}.py" if f"{base}.py" in files else f"{base}/__init__.py"
        api[name] = {"module": module, **described(files[path], name), "used": sorted(used[name])}
    known = {field: field in attributes for field in MODEL_FIELDS}
    out = Path(__file__).with_name("megatron_training_api.json")
    out.write_text(json.dumps({"wheel": Path(wheel).name, "calls": api, "model": known}, indent=1) + "\n")


if __name__ == "__main__":
    main(sys.argv[1])
