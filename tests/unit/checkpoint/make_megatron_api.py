"""Refresh megatron_api.json: the signatures and names that our adapter relies on, parsed from published wheels.

    pip download --no-deps --ignore-requires-python megatron-bridge==0.6.2 nemo-toolkit==2.7.3
    python tests/unit/checkpoint/make_megatron_api.py megatron_bridge-0.6.2-*.whl nemo_toolkit-2.7.3-*.whl

Nothing is imported or executed from the wheels; only names of functions, parameters and weights are kept.
"""

from __future__ import annotations

import ast
import json
import sys
import zipfile
from pathlib import Path
from typing import Any

BRIDGE, PROVIDER = "megatron/bridge/models/conversion/auto_bridge.py", "megatron/bridge/models/model_provider.py"
TRANSFORMER, MAPPING = "megatron/bridge/models/transformer_config.py", "megatron/bridge/models/deepseek/common.py"
BRIDGE_NAMES, LEGACY_NAMES = "megatron/bridge/__init__.py", "nemo/collections/llm/__init__.py"
LEGACY, LEGACY_MODEL = "nemo/collections/llm/api.py", "nemo/collections/llm/gpt/model/deepseek.py"


def parameters(function: ast.FunctionDef) -> list[list[Any]]:
    """Name, kind and whether there is a default, of each parameter, without self and cls."""
    a = function.args
    named = [*a.posonlyargs, *a.args]
    defaults = [False] * (len(named) - len(a.defaults)) + [True] * len(a.defaults)
    found = [[arg.arg, "either", default] for arg, default in zip(named, defaults, strict=True)]
    found += [[a.vararg.arg, "args", False]] if a.vararg else []
    found += [[arg.arg, "keyword", d is not None] for arg, d in zip(a.kwonlyargs, a.kw_defaults, strict=True)]
    found += [[a.kwarg.arg, "kwargs", False]] if a.kwarg else []
    return [row for row in found if row[0] not in ("self", "cls")]


def functions(tree: ast.Module, owner: str | None) -> dict[str, list[list[Any]]]:
    """Signatures of a module's functions, or of a class of it."""
    body = (
        tree.body
        if owner is None
        else next(n for n in tree.body if isinstance(n, ast.ClassDef) and n.name == owner).body
    )
    return {node.name: parameters(node) for node in body if isinstance(node, ast.FunctionDef) and node.name[0] != "_"}


def mapping(tree: ast.Module) -> list[list[Any]]:
    """Megatron's weight names with the Hugging Face names that they are made of, as the bridge's source has them."""
    pairs = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Dict) and node.keys and all(isinstance(key, ast.Constant) for key in node.keys):
            pairs += [[ast.literal_eval(k), [ast.literal_eval(v)]] for k, v in zip(node.keys, node.values, strict=True)]
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") in ("AutoMapping", "GatedMLPMapping"):
            given = {word.arg: text(word.value) for word in node.keywords}
            sources = [given[key] for key in ("hf_param", "gate", "up") if key in given]
            if given["megatron_param"] and all(sources):
                pairs.append([given["megatron_param"], sources])
    return pairs


def text(node: ast.expr) -> str | None:
    """A string, the numbers of MTP layers in an f-string as `*`."""
    if isinstance(node, ast.Constant):
        return str(node.value)
    if isinstance(node, ast.JoinedStr):
        return "".join(str(part.value) if isinstance(part, ast.Constant) else "#" for part in node.values)
    return None


def exports(tree: ast.Module) -> list[str]:
    """What a package's `__init__` imports from its modules, and so offers."""
    nodes = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    return sorted({alias.asname or alias.name for node in nodes for alias in node.names})


def defaults(tree: ast.Module, wanted: tuple[str, ...]) -> dict[str, dict[str, Any]]:
    """Constant defaults of the fields of each config class, inherited ones included."""
    found: dict[str, dict[str, Any]] = {}
    for node in tree.body:
        if not isinstance(node, ast.ClassDef) or not node.name.endswith("Config"):
            continue
        own: dict[str, Any] = {}
        for base in node.bases:
            own |= found.get(getattr(base, "id", ""), {})
        for line in node.body:
            if isinstance(line, ast.AnnAssign) and isinstance(line.value, ast.Constant):
                own |= {getattr(line.target, "id", ""): line.value.value}
        found[node.name] = {field: own[field] for field in wanted if field in own}
    return found


def main() -> None:
    """Parse the two wheels given."""
    files = {}
    for wheel in sys.argv[1:]:
        with zipfile.ZipFile(wheel) as archive:
            modules = {BRIDGE, PROVIDER, TRANSFORMER, MAPPING, LEGACY, LEGACY_MODEL, BRIDGE_NAMES, LEGACY_NAMES}
            wanted = modules & set(archive.namelist())
            files |= {name: ast.parse(archive.read(name)) for name in wanted}
    provider = functions(files[PROVIDER], "ModelProviderMixin") | functions(files[TRANSFORMER], "TransformerConfig")
    sizes = next(n for n in files[PROVIDER].body if isinstance(n, ast.ClassDef) and n.name == "ModelParallelKwargs")
    classes = [node.name for node in files[LEGACY_MODEL].body if isinstance(node, ast.ClassDef)]
    init = {
        name: [["args", "args", False], ["kwargs", "kwargs", False]] for name in classes if name.startswith("DeepSeek")
    }
    known = {*classes, *functions(files[LEGACY], None)}
    api = {
        "wheels": [Path(wheel).name for wheel in sys.argv[1:]],
        "bridge": functions(files[BRIDGE], "AutoBridge"),
        "provider": provider,
        "llm": functions(files[LEGACY], None) | init,
        "sizes": [node.target.id for node in sizes.body if isinstance(node, ast.AnnAssign)],
        "exports": {
            "megatron.bridge": exports(files[BRIDGE_NAMES]),
            "nemo.collections.llm": [name for name in exports(files[LEGACY_NAMES]) if name in known],
        },
        "models": defaults(files[LEGACY_MODEL], ("num_layers", "hidden_size", "moe_router_score_function")),
        "weights": mapping(files[MAPPING]),
    }
    out = Path(__file__).with_name("megatron_api.json")
    out.write_text(json.dumps(api, indent=1) + "\n")


if __name__ == "__main__":
    main()
