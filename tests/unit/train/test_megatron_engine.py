"""What engine `megatron` writes; its program's calls against the parsed source of the published wheel.

megatron_training_api.json is made by make_megatron_training_api.py; nothing here runs Megatron-Bridge.
"""

from __future__ import annotations

import ast
import json
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer

from finseek.core.errors import ConfigError, FinseekError
from finseek.model import DeepSeekV3
from finseek.samples import Encoder, load_samples
from finseek.train import LoraOptions, ModelInit, ParallelOptions, load_engine
from finseek.train.engines.megatron import engine as megatron
from finseek.train.engines.prepared import prepare

HERE = Path(__file__).parent
API = json.loads((HERE / "megatron_training_api.json").read_bytes())
BRIDGE = json.loads((HERE.parent / "checkpoint" / "megatron_api.json").read_bytes())
PROGRAM = Path(megatron.__file__).with_name("program.py").read_text()


def faults(source: str) -> tuple[list[str], set[str]]:
    """What is wrong with the calls of a program, and which names of the wheel it calls."""
    tree, wrong, seen = ast.parse(source), [], set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("megatron.bridge."):
            wrong += [a.name for a in node.names if API["calls"].get(a.name, {}).get("module") != node.module]
        if not isinstance(node, ast.Call):
            continue
        given = [word.arg for word in node.keywords if word.arg]
        if isinstance(node.func, ast.Name) and node.func.id in API["calls"]:
            name, known = node.func.id, API["calls"][node.func.id]
            seen.add(name)
            wrong += [f"{name}: {word}" for word in given if word not in {*known["names"], *known["used"]}]
            whole = len(node.args) + len(given)
            if not any(word.arg is None for word in node.keywords) and whole < len(known["required"]):
                wrong.append(f"{name}: {known['required']}")
        if isinstance(node.func, ast.Attribute) and isinstance(node.func.value, ast.Name):
            owner = {"AutoBridge": "bridge", "bridge": "bridge", "provider": "provider"}.get(node.func.value.id)
            if owner:
                rows = BRIDGE[owner].get(node.func.attr)
                names = {row[0] for row in rows} | {"torch_dtype", "wrap_with_ddp"} if rows else set()
                wrong += (
                    [node.func.attr] if rows is None else [f"{node.func.attr}: {w}" for w in given if w not in names]
                )
    return wrong, seen


def test_every_call_of_the_program_is_known_to_the_wheel() -> None:
    wrong, seen = faults(PROGRAM)
    assert wrong == []
    assert seen == set(API["calls"]) - {"forward_step"}


@pytest.mark.parametrize(
    ("right", "made_wrong"),
    [
        ("train_iters=", "train_iterations="),
        ("pretrained_checkpoint=", "pretrained="),
        ("dataset_root=", "root="),
        ("bridge.to_megatron_provider(", "bridge.to_provider("),
        ("megatron.bridge.peft.lora", "megatron.bridge.peft.adapters"),
        ("mp_overrides=", "overrides="),
    ],
)
def test_a_wrong_name_is_found(right: str, made_wrong: str) -> None:
    assert right in PROGRAM
    assert faults(PROGRAM.replace(right, made_wrong))[0]


@pytest.fixture
def job(make_job: Any, tmp_path: Path) -> Any:
    """A job of LoRA on an existing checkpoint, on two machines of eight GPUs."""
    first = make_job()
    prepare(first).first_model().save_pretrained(tmp_path / "base")
    DeepSeekV3.from_pretrained(tmp_path / "base")
    lora = LoraOptions(rank=32, alpha=64, dropout=0.05, target_modules="attention+experts")
    layout = ParallelOptions(
        num_nodes=2, devices_per_node=8, tensor_model_parallel_size=2, expert_model_parallel_size=8
    )
    made = make_job(engine="megatron", lora=lora, max_steps=1000, val_check_interval=100)
    return replace(made, init=ModelInit(path=tmp_path / "base"), parallel=layout)


def test_it_writes_everything_and_does_not_pretend(job: Any) -> None:
    with pytest.raises(FinseekError, match=r"has trained nothing: .*launch.sh has to be run .* container"):
        load_engine("megatron").run(job)
    folder = job.output / "megatron"
    names = sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())
    assert names == ["data/training.jsonl", "data/validation.jsonl", "launch.sh", "settings.json", "train.py"]
    assert not (job.output / "checkpoint").exists()
    settings = json.loads((folder / "settings.json").read_bytes())
    for part, call in (("optimizer", "distributed_fused_adam_with_cosine_annealing"), ("lora", "LoRA")):
        known = API["calls"][call]
        assert set(settings[part]) <= {*known["names"], *known["used"]}, part
    assert all(API["model"][name] for name in settings["router"])
    assert {name for name in settings["sizes"] if name.endswith("_size")} <= set(BRIDGE["sizes"])
    assert (settings["steps"], settings["validate_every"], settings["lora"]["dim"]) == (1000, 100, 32)
    script = (folder / "launch.sh").read_text()
    assert "--nnodes=2 --nproc-per-node=8" in script
    assert subprocess.run(["bash", "-n"], input=script, text=True, check=False).returncode == 0
    compile((folder / "train.py").read_text(), "train.py", "exec")


def test_a_line_of_its_data_has_the_tokens_of_the_sample(job: Any) -> None:
    with pytest.raises(FinseekError):
        load_engine("megatron").run(job)
    encoder, samples = Encoder(job.tokenizer, job.template), load_samples(job.training)
    tokens = Tokenizer.from_file(str(job.tokenizer / "tokenizer.json"))  # as transformers, and so Megatron, reads it
    lines = (job.output / "megatron" / "data" / "training.jsonl").read_text().splitlines()
    assert len(lines) == len(samples)
    for sample, line in zip(samples, map(json.loads, lines), strict=True):
        encoded = encoder.encode(sample)
        answer = encoded.input_ids[encoded.role > 0]
        assert tokens.encode(line["output"], add_special_tokens=False).ids == answer.tolist()
        assert tokens.encode(line["input"], add_special_tokens=False).ids == encoder.prompt_ids(sample)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"lora": LoraOptions(target_modules=("q_a_proj",))}, "give one of attention, attention"),
        ({"lora": LoraOptions(rslora=True)}, "rslora"),
        ({"loss_weights": {"action": 1.0, "rest": 0.5}}, "weighs all tokens alike"),
        ({"average_decay": 0.9}, "average_decay"),
        ({"packed_sequence_size": 256}, "leave them out"),
        ({"gradient_checkpointing": True}, "keeps all activations"),
        ({"precision": "fp32"}, "computes in bf16"),
        ({"lora": LoraOptions(alpha=16.5)}, "alpha 16.5: Megatron-Bridge takes whole numbers"),
    ],
)
def test_what_it_cannot_write_down_is_refused(job: Any, make_job: Any, options: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        load_engine("megatron").run(replace(job, options=make_job(engine="megatron", **options).options))
    with pytest.raises(ConfigError, match=r"give model\.path"):
        load_engine("megatron").run(make_job(engine="megatron"))
    assert not job.output.exists()
