"""The lightning engine over several processes learns what one process learns, and leaves the same checkpoint."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed as dist

from finseek.core.errors import ConfigError
from finseek.core.progress import silent
from finseek.train import TrainJob, TrainResult, load_engine
from finseek.train.engines.lightning.engine import train
from finseek.train.processes import run_processes
from finseek.train.state import TIME_FIELDS

TWO = {"devices_per_node": 2}
EXPERTS = {**TWO, "expert_model_parallel_size": 2}
STAGES = {**TWO, "pipeline_model_parallel_size": 2}
MTP = {"num_nextn_predict_layers": 1}
PLAIN = {"balance_loss": 0.0}
LORA = {"lora": {"rank": 4, "alpha": 8.0, "dropout": 0.0}, "learning_rate": 1e-2}
ONLY_MANY = ("packed_sequence_size", "gradient_checkpointing")  # what must not change a number
# name: parallel options, changed architecture, train options
CASES = {
    "EP 2": ({**EXPERTS, "sharding": "none"}, MTP, {}),
    "EP 2, FSDP": (EXPERTS, MTP, {"average_decay": 0.9}),
    "FSDP 2": (TWO, MTP, {"gradient_checkpointing": True}),
    "DDP 2, packed": ({**TWO, "sharding": "none"}, {}, {**PLAIN, "packed_sequence_size": 192}),
    "TP 2": ({**TWO, "tensor_model_parallel_size": 2}, MTP, {}),
    "PP 2": ({**STAGES, "sharding": "none"}, {}, PLAIN),
    "LoRA, EP 2, FSDP": (EXPERTS, {}, LORA),
    "LoRA, TP 2": ({**TWO, "tensor_model_parallel_size": 2}, {}, LORA),
}


FIGURES = ("loss", "action_loss", "grad_norm", "validation_loss", "mtp_loss", "balance_loss", "router_load_max")
TOLERANCE = 1e-4  # relative


def lines(job: TrainJob) -> list[dict]:
    read = [json.loads(line) for line in (job.output / "train_log.jsonl").read_text().splitlines()]
    return [{key: value for key, value in line.items() if key not in TIME_FIELDS} for line in read]


def tensors(job: TrainJob) -> dict[str, torch.Tensor]:
    from safetensors.torch import load_file

    (file,) = (job.output / "checkpoint").glob("*.safetensors")
    return load_file(file)


def run_all(first: TrainJob) -> TrainResult:
    """In each of several processes: the jobs that lie beside the first one, one after the other."""
    dist.init_process_group("gloo")
    results = []
    for job in json.loads((first.output / "jobs.json").read_text()):
        results.append(train(TrainJob.from_json(job), silent))
        dist.barrier()
    dist.destroy_process_group()
    return results[-1]


@pytest.fixture(scope="module")
def pairs(module_job) -> dict[str, tuple[TrainJob, TrainJob]]:
    """Each case trained by one process and by two; these are started once for all."""
    found = {}
    for case, (parallel, overrides, options) in CASES.items():
        alone = {key: value for key, value in options.items() if key not in ONLY_MANY}
        found[case] = (
            module_job(f"{case}/one", None, overrides, **alone),
            module_job(f"{case}/many", parallel, overrides, **options),
        )
        load_engine("lightning").run(found[case][0])
    many = [job for _, job in found.values()]
    starter = replace(module_job("starter", TWO), output=many[0].output.parent / "starter")
    starter.output.mkdir(parents=True)
    (starter.output / "jobs.json").write_text(json.dumps([job.to_json() for job in many]))
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(Path(__file__).parent))  # where the processes find run_all
        run_processes("test_train_lightning:run_all", starter)
    return found


@pytest.mark.parametrize("case", CASES)
def test_a_layout_learns_what_one_process_learns(pairs, case):
    one, many = pairs[case]
    expected, found = lines(one), lines(many)
    assert len(found) == 20
    for key in FIGURES:
        mine, whole = ([np.nan if line[key] is None else line[key] for line in each] for each in (found, expected))
        assert mine == pytest.approx(whole, rel=TOLERANCE, abs=1e-6, nan_ok=True), key
    assert found[-1]["loss"] < 0.97 * found[0]["loss"]
    assert sorted(each.name for each in many.output.iterdir()) == ["checkpoint", "train_log.jsonl"]
    whole = tensors(one)
    for name, tensor in tensors(many).items():
        assert torch.allclose(tensor, whole.pop(name), atol=2e-3), name
    assert not whole


def test_a_pipeline_says_what_it_does_not_have(module_job):
    with pytest.raises(ConfigError, match=r"set train.balance_loss to 0"):
        load_engine("lightning").run(module_job("out", STAGES))
