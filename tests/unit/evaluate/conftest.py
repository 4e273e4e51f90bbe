from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from finseek.core.actions import ACTIONS
from finseek.samples import Encoder, Sample, train_tokenizer

ORDERS = {"action first": ("action", "reasoning", "support"), "reasoning first": ("reasoning", "support", "action")}


def toy_samples(order: tuple[str, ...]) -> list[Sample]:
    """Ten samples whose action follows from one word of the prompt."""
    samples = []
    for number in range(10):
        action = ACTIONS[number % 5]
        body = {"action": action.value, "reasoning": f"word{number % 5} says so", "support": f"see word{number % 5}"}
        output, start = "", 0
        for tag in order:
            output += f"\n<{tag}>" if output else f"<{tag}>"
            start = len(output) if tag == "action" else start
            output += f"{body[tag]}</{tag}>"
        span = [start, start + len(f"{action}</action>")]
        metadata = {"ticker": f"T{number}", "as_of_date": "2025-01-02", "action": action.value, "action_span": span}
        samples.append(Sample("filler " * (number % 3) + f"word{number % 5}", output, metadata))
    return samples


@pytest.fixture(scope="session")
def memoriser(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], tuple[Path, list[Sample]]]:
    """A checkpoint that has learned the toy samples by heart, and the samples, by the order of the answer."""
    import torch

    from finseek.model import DeepSeekConfig, DeepSeekV3

    made: dict[str, tuple[Path, list[Sample]]] = {}

    def make(name: str) -> tuple[Path, list[Sample]]:
        if name in made:
            return made[name]
        samples = toy_samples(ORDERS[name])
        folder = tmp_path_factory.mktemp("memoriser") / "checkpoint"
        train_tokenizer([sample.input + sample.output for sample in samples], 400, folder)
        encoder = Encoder(folder)
        config = DeepSeekConfig.preset(
            "tiny",
            vocab_size=encoder.vocab_size,
            hidden_size=32,
            intermediate_size=64,
            moe_intermediate_size=32,
            num_hidden_layers=2,
            n_routed_experts=4,
            n_group=1,
            topk_group=1,
            num_experts_per_tok=2,
            num_nextn_predict_layers=0,
            initializer_range=0.1,
            eos_token_id=encoder.end_ids[0],
            pad_token_id=encoder.end_ids[0],
        )
        model = DeepSeekV3(config, seed=0)
        encoded = [encoder.encode(sample) for sample in samples]
        longest = max(len(row.input_ids) for row in encoded)
        ids = torch.full((len(samples), longest), encoder.end_ids[0])
        labels = torch.full((len(samples), longest), -100)
        mask = torch.zeros((len(samples), longest), dtype=torch.int64)
        for i, row in enumerate(encoded):
            tokens = torch.from_numpy(row.input_ids).long()
            ids[i, : len(tokens)], mask[i, : len(tokens)] = tokens, 1
            labels[i, : len(tokens)] = torch.where(torch.from_numpy(row.role) > 0, tokens, -100)
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
        for _ in range(50):
            optimizer.zero_grad()
            loss = model(ids, mask, labels).loss
            loss.backward()
            optimizer.step()
        assert loss < 0.05, f"the toy model did not learn its ten samples: loss {loss}"
        model.eval().save_pretrained(folder)
        made[name] = folder, samples
        return made[name]

    return make
