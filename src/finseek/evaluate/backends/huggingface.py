"""Any causal language model of transformers, with or without an adapter."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from finseek.checkpoint.shards import refuse_pickles
from finseek.core.errors import InputError, MissingPart
from finseek.evaluate.backends.local import Ids, LocalBackend, left_padded
from finseek.model.imports import quiet_imports


@contextmanager
def _without_bars() -> Iterator[None]:
    """Transformers draws a bar for the weights of any model, however small."""
    from transformers.utils import logging

    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()


class HuggingFaceBackend(LocalBackend):
    """Runs a checkpoint with transformers; a folder with adapter_config.json is an adapter on its base model."""

    model: Any

    def load(self, checkpoint: Path) -> set[int]:
        """Load the model from files alone; nothing is downloaded and no code of a checkpoint is run."""
        import torch

        try:
            from safetensors import SafetensorError
            from transformers import AutoModelForCausalLM
        except ImportError:
            raise MissingPart("transformers", "train", "the huggingface back end") from None
        refuse_pickles(checkpoint)
        given = {"dtype": getattr(torch, self.options.dtype), "local_files_only": True, "use_safetensors": True}
        try:
            with quiet_imports(), _without_bars():
                if (checkpoint / "adapter_config.json").exists():
                    from peft import AutoPeftModelForCausalLM

                    with warnings.catch_warnings():  # PEFT stacks adapters of single experts, with a rank for all kinds
                        warnings.filterwarnings("ignore", message="The following (rank|alpha)_pattern keys")
                        model = AutoPeftModelForCausalLM.from_pretrained(checkpoint, **given)
                else:
                    model = AutoModelForCausalLM.from_pretrained(checkpoint, **given)
        except (OSError, ValueError, SafetensorError) as error:
            raise InputError(f"checkpoint {checkpoint} cannot be loaded by transformers ({error})") from None
        self.model = model.to(self.options.device).eval()
        eos = self.model.generation_config.eos_token_id or self.model.config.eos_token_id
        return {eos} if isinstance(eos, int) else set(eos or ())

    def sizes(self) -> tuple[int, int | None]:
        """By its embedding, and as its config says."""
        context = getattr(self.model.config.get_text_config(), "max_position_embeddings", None)
        return self.model.get_input_embeddings().num_embeddings, context

    def generate(self, prompts: list[Ids], temperature: float, seed: int) -> list[Ids]:
        """Batched generation; torch's global generator is put back afterwards."""
        import torch

        tokens, mask = (torch.from_numpy(array).to(self.options.device) for array in left_padded(prompts))
        sampling = {"do_sample": False} if temperature == 0 else {
            "do_sample": True, "temperature": temperature, "top_p": self.options.top_p, "top_k": 0,
        }  # fmt: skip
        with torch.random.fork_rng(), torch.inference_mode():
            torch.manual_seed(seed)
            grown = self.model.generate(
                input_ids=tokens,
                attention_mask=mask,
                max_new_tokens=self.options.max_new_tokens,
                eos_token_id=sorted(self.stops),
                pad_token_id=min(self.stops),
                **sampling,
            )
        rows: list[Ids] = grown[:, tokens.shape[1] :].tolist()
        return rows

    def score(self, prompts: list[Ids], continuations: list[Ids]) -> list[NDArray[np.float64]]:
        """Scores of five full sequences a prompt."""
        rows = [(prompt, tail) for prompt in prompts for tail in continuations]
        return list(self.log_p(rows).reshape(len(prompts), len(continuations)))

    def log_p(self, pairs: Sequence[tuple[Ids, Ids]]) -> NDArray[np.float64]:
        """Scores of full sequences, padded on the right, batch_size of them at a time."""
        import torch

        rows, totals = list(pairs), []
        for start in range(0, len(rows), self.options.batch_size):
            batch = rows[start : start + self.options.batch_size]
            T = max(len(prompt) + len(tail) for prompt, tail in batch)
            tokens = torch.zeros(len(batch), T, dtype=torch.int64)
            mask = torch.zeros(len(batch), T, dtype=torch.int64)
            asked = torch.zeros(len(batch), T, dtype=torch.bool)
            for i, (prompt, tail) in enumerate(batch):
                end = len(prompt) + len(tail)
                tokens[i, :end], mask[i, :end], asked[i, len(prompt) : end] = torch.tensor(prompt + tail), 1, True
            device = self.options.device
            with torch.inference_mode():
                logits = self.model(input_ids=tokens.to(device), attention_mask=mask.to(device)).logits
            log_p = logits[:, :-1].float().log_softmax(-1).cpu()
            each = log_p.gather(2, tokens[:, 1:, None]).squeeze(2).double()
            totals.append((each * asked[:, 1:]).sum(1).numpy())
        return np.concatenate(totals)
