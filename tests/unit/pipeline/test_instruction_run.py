"""A run on instruction data alone: converted, trained in 4-bit, evaluated, reported, and every hash verified."""

from __future__ import annotations

import csv
import json
import random
from pathlib import Path

import jsonschema
import pytest
import torch

from finseek.core.errors import ConfigError, InputError, Note
from finseek.model import DeepSeekConfig, DeepSeekV3
from finseek.pipeline import load_config, run
from finseek.pipeline.manifest import verify_manifest
from finseek.samples import Encoder, load_samples, train_tokenizer

CONFIGS = Path(__file__).resolve().parents[3] / "configs"
SUBJECTS = ("revenue", "margin", "debt", "cash", "dividend", "tax")


def rows(count: int, seed: int = 0) -> list[dict[str, str]]:
    """Questions in Finance-Instruct's columns whose answers follow from their words."""
    rng = random.Random(seed)
    made = []
    for number in range(count):
        subject, value = rng.choice(SUBJECTS), rng.randrange(100)
        system = rng.choice(["\n", "You are a careful analyst.", ""])
        made.append(
            {
                "system": system,
                "user": f"Question {number}: the {subject} was {value}, what was the {subject}?",
                "assistant": f"The {subject} was {value}.",
            }
        )
    return made


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny DeepSeek-V3 with its tokenizer, whose in-features are multiples of 64."""
    folder = tmp_path_factory.mktemp("checkpoint")
    texts = [row[column] for row in rows(300, 7) for column in ("user", "assistant")]
    train_tokenizer(texts, 500, folder)
    shape = {
        "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64,
        "moe_intermediate_size": 64, "n_routed_experts": 4, "q_lora_rank": 64, "kv_lora_rank": 64,
        "qk_nope_head_dim": 32, "qk_rope_head_dim": 16, "v_head_dim": 32, "initializer_range": 0.15,
        "vocab_size": Encoder(folder).vocab_size, "bos_token_id": 0, "eos_token_id": 1,
    }  # fmt: skip
    DeepSeekV3(DeepSeekConfig.preset("tiny", **shape), seed=1).save_pretrained(folder)
    return folder


@pytest.fixture
def small(checkpoint: Path, tmp_path: Path) -> list[str]:
    """`instruct-qlora.yaml` scaled to the tiny model and to 500 generated rows."""
    source = tmp_path / "rows.jsonl"
    broken = [{"system": "", "user": "", "assistant": "an answer to nothing"}]
    source.write_text("".join(json.dumps(row) + "\n" for row in rows(500) + broken))
    return [
        f"run.output_dir={tmp_path / 'runs'}", f"instruct.source={source}", f"model.path={checkpoint}",
        "instruct.validation_fraction=0.05", "instruct.test_fraction=0.1",
        "train.max_steps=30", "train.learning_rate=0.02", "train.seq_length=256", "instruct.max_tokens=256",
        "train.val_check_interval=15", "train.threads=1", "evaluate.device=cpu", "evaluate.dtype=float32",
        "evaluate.threads=1", "evaluate.bootstrap_resamples=200",
    ]  # fmt: skip


def test_instruct_qlora_runs_from_rows_to_report(small: list[str], tmp_path: Path) -> None:
    loaded = load_config(CONFIGS / "instruct-qlora.yaml", small)
    with pytest.warns(Note) as notes:
        result = run(loaded)
    folder = result.paths.root
    by_name = {outcome.name: outcome for outcome in result.outcomes}
    left_out = [name for name, outcome in by_name.items() if outcome.status == "left out"]
    assert left_out == ["theses", "prices", "split", "backtest", "audit"]
    assert all("instruction data alone" in by_name[name].reason for name in left_out)
    assert str(next(iter(notes)).message).startswith("train.unsloth: Unsloth is not installed")
    assert list(verify_manifest(folder)) == []

    counts = by_name["samples"].counts
    assert (counts["found"], counts["kept"], counts["rejected"]) == (501, 500, 1)
    assert counts["train"] + counts["validation"] + counts["test"] == 500
    asked = {}
    for split in ("training", "validation", "test"):
        samples = load_samples(folder / "samples" / f"{split}.jsonl")
        turns = [[*sample.metadata["earlier"], {"content": sample.input}] for sample in samples]
        assert all(len(each) == 5 for each in turns)
        asked[split] = {turn["content"] for each in turns for turn in each[::2]}
    assert not asked["training"] & asked["test"]
    assert not asked["training"] & asked["validation"]

    adapter = json.loads((folder / "train" / "checkpoint" / "adapter_config.json").read_text())
    assert (adapter["r"], adapter["lora_alpha"], adapter["bias"]) == (4, 16, "none")
    log = [json.loads(line) for line in (folder / "train" / "train_log.jsonl").read_text().splitlines()]
    assert log[-1]["loss"] < 0.9 * log[0]["loss"]

    metrics = json.loads((folder / "evaluate" / "metrics.json").read_text())
    with (folder / "evaluate" / "eval_results.csv").open() as lines:
        answers = list(csv.DictReader(lines))
    assert len(answers) == counts["test"] == metrics["rows"]["total"]
    nll, tokens = (sum(float(row[name]) for row in answers) for name in ("nll", "tokens"))
    assert metrics["loss"]["value"] == pytest.approx(nll / tokens)
    before = metrics["baselines"]["before_training"]
    assert before["improvement"]["low"] > 0
    assert before["loss"] - metrics["loss"]["value"] == pytest.approx(before["improvement"]["value"])

    report = json.loads((folder / "report.json").read_text())
    jsonschema.validate(report, json.loads((folder / "report.schema.json").read_text()))
    assert report["instruction"]["perplexity"] == pytest.approx(metrics["perplexity"])
    page = (folder / "report.html").read_text()
    assert "Held-out answers" in page
    assert "it says nothing of trading" in page
    card = (folder / "train" / "README.md").read_text()
    assert "answers instructions" in card
    assert "nats a token of held-out answers" in card
    assert "theses" not in card

    again = run(loaded)
    assert {outcome.status for outcome in again.outcomes} == {"left out", "unchanged"}


def test_without_adapters_and_with_written_answers(small: list[str], tmp_path: Path) -> None:
    extra = ["train.engine=lightning", "train.load_in_4bit=false", "train.lora=null", "train.unsloth=false"]
    extra += ["train.max_steps=4", "evaluate.mode=generate", "evaluate.max_new_tokens=8", "prompt.max_samples=24"]
    result = run(load_config(CONFIGS / "instruct-qlora.yaml", [*small, *extra, "instruct.conversation_extension=1"]))
    metrics = json.loads((result.paths.evaluate / "metrics.json").read_text())
    assert set(metrics["text"]) >= {"exact_match", "rouge_l", "chrf"}
    assert metrics["rows"]["total"] == 24
    model = DeepSeekV3.from_pretrained(result.paths.train / "checkpoint")
    encoder = Encoder(result.paths.train / "checkpoint", "tokenizer")
    sample = load_samples(result.paths.samples / "test.jsonl")[0]
    encoded = encoder.encode(sample)
    with torch.no_grad():
        ids = torch.from_numpy(encoded.input_ids.astype("int64"))[None]
        nll = -model(ids).logits[0, :-1].log_softmax(-1).gather(-1, ids[0, 1:, None])[:, 0].double().numpy()
    with (result.paths.evaluate / "eval_results.csv").open() as lines:
        first = next(csv.DictReader(lines))
    assert float(first["nll"]) == pytest.approx(float(nll[encoded.role[1:] > 0].sum()), rel=1e-5)


def test_long_prompts_are_rejected_and_counted(small: list[str], tmp_path: Path) -> None:
    source = tmp_path / "rows.jsonl"
    long = {"system": "", "user": "why " * 400, "assistant": "because"}
    source.write_text(source.read_text() + json.dumps(long) + "\n")
    result = run(load_config(CONFIGS / "instruct-qlora.yaml", small), last="samples")
    counts = result.outcomes[-1].counts
    assert counts["kept"] == 501
    assert counts["conversations_left_out"] == 1
    assert counts["train"] + counts["validation"] + counts["test"] == 500
    rejects = [json.loads(line) for line in (result.paths.samples / "rejects.jsonl").read_text().splitlines()]
    assert [row["reason"] for row in rejects][-1] == "prompt_too_long"
    summary = json.loads((result.paths.samples / "summary.json").read_text())
    assert sum(summary["conversations_left_out"]["prompt_too_long"].values()) == 1


@pytest.mark.parametrize(
    ("assignment", "message"),
    [
        ("theses.source=theses", "two kinds of runs"),
        ("instruct.max_tokens=4096", r"instruct.max_tokens 4096 exceeds train.seq_length 256"),
        ("evaluate.backend=openai evaluate.mode=generate", "gives no probabilities"),
        ("instruct.format=samples", "instruct.format"),
    ],
)
def test_what_cannot_be_one_run(small: list[str], assignment: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load_config(CONFIGS / "instruct-qlora.yaml", [*small, *assignment.split()])


def test_too_few_rows_are_one_line(small: list[str], tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows(3)))
    with pytest.raises(InputError, match="leaves nothing for"):
        run(load_config(CONFIGS / "instruct-qlora.yaml", small), last="samples")
    assert not (tmp_path / "runs" / "instruct-qlora" / "samples").exists()
