"""The adapter to Megatron against the parsed source of the published wheels (megatron_api.json, see its script)."""

from __future__ import annotations

import ast
import inspect
import json
import re
from pathlib import Path
from typing import Any

import pytest

from finseek.checkpoint import megatron
from finseek.checkpoint.megatron import LEGACY, MegatronOptions
from finseek.checkpoint.names import TABLE
from finseek.cli.main import main
from finseek.core.errors import ConfigError, InputError

API = json.loads(Path(__file__).with_name("megatron_api.json").read_bytes())
KIND = {
    "either": inspect.Parameter.POSITIONAL_OR_KEYWORD,
    "args": inspect.Parameter.VAR_POSITIONAL,
    "keyword": inspect.Parameter.KEYWORD_ONLY,
    "kwargs": inspect.Parameter.VAR_KEYWORD,
}
OWNERS = {"AutoBridge": "bridge", "bridge": "bridge", "provider": "provider", "llm": "llm"}


def signature(rows: list[list[Any]]) -> inspect.Signature:
    empty = inspect.Parameter.empty
    return inspect.Signature([inspect.Parameter(n, KIND[k], default=None if d else empty) for n, k, d in rows])


def unbound(source: str) -> tuple[list[str], int]:
    """What is wrong with each call on a known owner, and how many calls there were."""
    wrong, count = [], 0
    for node in ast.walk(ast.parse(source)):
        if not (
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Attribute)
            and isinstance(node.func.value, ast.Name)
        ):
            continue
        if node.func.value.id not in OWNERS:
            continue
        count += 1
        table = API[OWNERS[node.func.value.id]]
        name = node.func.attr
        if name not in table:
            wrong.append(f"{node.func.value.id}.{name} does not exist")
            continue
        try:
            signature(table[name]).bind(*node.args, **{word.arg: word.value for word in node.keywords if word.arg})
        except TypeError as error:
            wrong.append(f"{node.func.value.id}.{name}: {error}")
            continue
        # Words that only **kwargs takes are bound nowhere: they must be known to the function that they are passed to.
        named = {row[0] for row in table[name]}
        passed_on = {"torch_dtype", "wrap_with_ddp", "trust_remote_code"}
        wrong += [f"{name}: {word.arg}" for word in node.keywords if word.arg not in named | passed_on]
    return wrong, count


def unknown_imports(source: str) -> list[str]:
    """Names that are imported from the wheels' packages and that these do not offer."""
    nodes = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.ImportFrom)]
    offered = {**API["exports"], "nemo.collections": ["llm"]}
    foreign = [node for node in nodes if (node.module or "").partition(".")[0] in ("megatron", "nemo")]
    return [
        f"{node.module}.{alias.name}"
        for node in foreign
        for alias in node.names
        if alias.name not in offered.get(node.module or "", ())
    ]


def test_every_call_binds() -> None:
    source = Path(megatron.__file__).read_text()
    wrong, count = unbound(source)
    assert wrong == []
    assert count == 14
    assert unknown_imports(source) == []
    assert unknown_imports("from megatron.bridge import AutoBridges") == ["megatron.bridge.AutoBridges"]
    assert unknown_imports("from megatron.hub import AutoBridge") == ["megatron.hub.AutoBridge"]


def test_the_models_of_nemo_2_are_what_our_table_says() -> None:
    offered = API["exports"]["nemo.collections.llm"]
    assert {"DeepSeekModel", "import_ckpt", "export_ckpt", *LEGACY.values()} <= set(offered)
    for (hidden, layers, scores), name in LEGACY.items():
        theirs = API["models"][name]
        assert (theirs["hidden_size"], theirs["num_layers"]) == (hidden, layers)
        assert theirs.get("moe_router_score_function", "softmax") == scores


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ("AutoBridge.import_checkpoint('a', 'b')", "AutoBridge.import_checkpoint does not exist"),
        ("AutoBridge.import_ckpt('a')", "missing a required argument: 'megatron_path'"),
        ("bridge.export_ckpt('a', 'b', hf='c')", "unexpected keyword argument 'hf'"),
        ("provider.initialize_model_parallel(0, None, 3)", "too many positional arguments"),
        ("bridge.load_megatron_model('a', None)", "too many positional arguments"),
        ("llm.import_ckpt(model=1, origin='x')", "'source'"),
        ("AutoBridge.import_ckpt('a', 'b', dtype=1)", "import_ckpt: dtype"),
    ],
)
def test_the_binding_itself_finds_mistakes(line: str, complaint: str) -> None:
    wrong, _ = unbound(line)
    assert len(wrong) == 1
    assert complaint in wrong[0]


def test_sizes_have_megatrons_names() -> None:
    assert set(MegatronOptions().sizes()) <= set(API["sizes"])


def generic(name: str) -> str:
    """Numbers and placeholders as `*`."""
    return re.sub(r"\{\w+\}|#|\*", "*", name)


def test_the_table_of_names_is_the_bridges() -> None:
    """Each of our Megatron names is in the bridge's mapping, made of the same Hugging Face names in the same order."""
    theirs: dict[str, list[list[str]]] = {}
    for name, sources in API["weights"]:
        theirs.setdefault(generic(name), []).append([generic(source) for source in sources])
    ours: dict[str, list[tuple[int, str]]] = {}
    for row in TABLE:
        if row.megatron is not None:
            place = row.megatron.part[0] if row.megatron.part else 0
            ours.setdefault(generic(row.megatron.name), []).append((place, generic(row.hf)))
    for name, parts in ours.items():
        assert [source for _, source in sorted(parts)] in theirs[name], name
    # The other way: what the bridge knows besides is another spelling of the same weight (a spec without TE).
    known = {source for parts in ours.values() for _, source in parts}
    explained = {source for options in theirs.values() for sources in options for source in sources}
    assert explained <= known | {"model.layers.*.self_attn.q_proj.weight"}
    assert known <= explained


def test_says_at_once_what_is_missing(plain: Path, quantized: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"megatron\.bridge is not installed here; it needs Python 3\.12"):
        megatron.import_megatron(plain, tmp_path / "out")
    with pytest.raises(InputError, match=r"megatron\.bridge is not installed here"):
        megatron.export_megatron(tmp_path, tmp_path / "out", plain)
    with pytest.raises(InputError, match=r"3 layers of 128 with a sigmoid router are no model that NeMo 2\.7 knows"):
        megatron.import_legacy(plain, tmp_path / "out")
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(LEGACY, (128, 3, "sigmoid"), "DeepSeekV3Config")
        with pytest.raises(
            InputError, match=r"nemo\.collections\.llm is not installed here; it needs nemo-toolkit 2\.7"
        ):
            megatron.import_legacy(plain, tmp_path / "out")
    with pytest.raises(InputError, match="is FP8; dequantize it first"):
        megatron.import_legacy(quantized, tmp_path / "out")
    with pytest.raises(InputError, match=r"nemo\.collections\.llm"):
        megatron.export_legacy(tmp_path, tmp_path / "out")
    with pytest.raises(InputError, match="is FP8; dequantize it first"):
        megatron.import_megatron(quantized, tmp_path / "out")
    for sizes, said in (
        ({"tensor": 3}, "3 must divide the 4 attention"),
        ({"expert": 5}, "5 must divide the 8 routed"),
        ({"pipeline": 9}, r"9 must be in 1\.\.3"),
    ):
        options = MegatronOptions(**{f"{key}_model_parallel_size": value for key, value in sizes.items()})
        with pytest.raises(ConfigError, match=said):
            megatron.import_megatron(plain, tmp_path / "out", options)


def test_the_same_door_on_the_command_line(
    plain: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """import-nemo by --to, export-hf by what lies in the folder; without the packages each says so at once."""
    (tmp_path / "iter").mkdir()
    (tmp_path / "iter" / "run_config.yaml").write_text("")
    (tmp_path / "nemo2" / "context").mkdir(parents=True)
    out, base = str(tmp_path / "out"), str(plain)
    for words, said in (
        (["import-nemo", base, out, "--to", "megatron", "--expert-parallel", "2"], "megatron.bridge is not installed"),
        (
            ["import-nemo", base, out, "--to", "megatron", "--expert-parallel", "3"],
            "3 must divide the 8 routed experts",
        ),
        (["import-nemo", base, out, "--to", "legacy"], "no model that NeMo 2.7 knows"),
        (["import-nemo", base, out, "--tensor-parallel", "2"], "tensor_parallel: 2 must be 1 with AutoModel"),
        (["export-hf", str(tmp_path / "iter"), out], "give the imported one with --base"),
        (["export-hf", str(tmp_path / "iter"), out, "--base", base], "megatron.bridge is not installed"),
        (["export-hf", str(tmp_path / "nemo2"), out], "nemo.collections.llm is not installed"),
    ):
        monkeypatch.setattr("sys.argv", ["finseek", "checkpoint", *words])
        with pytest.raises(SystemExit) as left:
            main()
        assert left.value.code == 2
        assert said in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
