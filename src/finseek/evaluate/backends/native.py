"""finseek's own DeepSeek-V3, on its latent cache."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from finseek.evaluate.backends.local import Ids, LocalBackend, left_padded


class NativeBackend(LocalBackend):
    """Runs a checkpoint of the model; each prompt is run once for its five continuations."""

    model: Any

    def load(self, checkpoint: Path) -> set[int]:
        """Load the model without its multi-token-prediction modules."""
        import torch

        from finseek.model import DeepSeekV3

        dtype = getattr(torch, self.options.dtype)
        model = DeepSeekV3.from_pretrained(checkpoint, dtype=dtype, num_nextn_predict_layers=0)
        self.model = model.to(self.options.device).eval()
        eos = self.model.config.eos_token_id
        return {eos} if isinstance(eos, int) else set(eos or ())

    def sizes(self) -> tuple[int, int | None]:
        """As its config says."""
        return self.model.config.vocab_size, self.model.config.max_position_embeddings

    def generate(self, prompts: list[Ids], temperature: float, seed: int) -> list[Ids]:
        """Batched generation."""
        import torch

        tokens, mask = (torch.from_numpy(array).to(self.options.device) for array in left_padded(prompts))
        grown = self.model.generate(
            tokens,
            mask,
            max_new_tokens=self.options.max_new_tokens,
            temperature=temperature,
            top_p=self.options.top_p,
            stop_token_ids=self.stops,
            generator=torch.Generator(self.options.device).manual_seed(seed),
        )
        rows: list[Ids] = grown[:, tokens.shape[1] :].tolist()
        return rows

    def score(self, prompts: list[Ids], continuations: list[Ids]) -> list[NDArray[np.float64]]:
        """Scores on a shared latent cache."""
        from finseek.model import score_continuations

        found: list[NDArray[np.float64]] = score_continuations(
            self.model, prompts, [continuations] * len(prompts), batch_size=len(prompts)
        )
        return found

    def log_p(self, pairs: Sequence[tuple[Ids, Ids]]) -> NDArray[np.float64]:
        """Scores of one continuation a prompt."""
        from finseek.model import score_continuations

        prompts, tails = zip(*pairs, strict=True)
        return np.concatenate(score_continuations(self.model, prompts, [[tail] for tail in tails], len(pairs)))
