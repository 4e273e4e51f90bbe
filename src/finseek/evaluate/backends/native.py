"""finseek's own DeepSeek-V3, on its latent cache."""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from finseek.core.actions import ACTIONS
from finseek.core.artifacts import sha256_file, sha256_json
from finseek.evaluate.backends.base import Answer
from finseek.evaluate.options import EvaluateOptions
from finseek.samples import Encoder, Sample

ACTION_TAG = "<action>"
SAMPLING = ("mode", "max_new_tokens", "temperature", "top_p", "dtype")


class NativeBackend:
    """Runs a checkpoint in the Hugging Face layout, its tokenizer beside it.

    Args:
        checkpoint: folder with config.json, safetensors and tokenizer.json.
        options: mode, sampling, batch size, device, dtype.
        order: order of the elements in an answer; what stands before the action is generated first.
        seed: of the sampling at temperatures above zero.
        template: chat template, as in the prompt options.

    Raises:
        InputError: the folder holds no model.
        ArtifactError: it holds no tokenizer.
    """

    def __init__(
        self,
        checkpoint: Path,
        options: EvaluateOptions,
        order: Sequence[str],
        seed: int = 0,
        template: str = "deepseek",
    ) -> None:
        import torch

        from finseek.model import DeepSeekV3

        self.options, self.order, self.seed = options, tuple(order), seed
        self.encoder = Encoder(checkpoint, template)
        model = DeepSeekV3.from_pretrained(checkpoint, dtype=getattr(torch, options.dtype), num_nextn_predict_layers=0)
        self.model: Any = model.to(options.device).eval()
        eos = self.model.config.eos_token_id
        self.stops = {*self.encoder.end_ids[:1], *([eos] if isinstance(eos, int) else eos or ())}
        weights = sorted([*checkpoint.glob("*.safetensors"), *checkpoint.glob("*.json")])
        self.identity = sha256_json(
            {
                "files": {file.name: sha256_file(file) for file in weights},
                "sampling": options.model_dump(mode="json", include=set(SAMPLING)),
                "order": list(order),
                "template": template,
                "seed": seed if options.temperature else None,
            }
        )

    def plan(self, samples: Sequence[Sample]) -> list[list[int]]:
        """Batches of samples of like length, the longest first, so that memory is known after the first one."""
        lengths = [len(self.encoder.prompt_ids(sample)) for sample in samples]
        ordered = sorted(range(len(samples)), key=lambda i: (-lengths[i], i))
        size = self.options.batch_size
        return [ordered[start : start + size] for start in range(0, len(ordered), size)]

    def answers(self, batches: Iterable[Sequence[Sample]]) -> Iterator[tuple[int, list[Answer]]]:
        """Answers of each batch, in order."""
        respond = self._score if self.options.mode == "score" else self._generate
        for number, batch in enumerate(batches):
            yield number, respond(batch)

    def _generate(self, batch: Sequence[Sample]) -> list[Answer]:
        return [Answer(text, tokens=n) for text, n in self._free_text(batch)]

    def _free_text(self, batch: Sequence[Sample]) -> list[tuple[str, int]]:
        """Text and number of tokens that follow each prompt, up to the end of the sentence."""
        import torch

        prompts = [self.encoder.prompt_ids(sample) for sample in batch]
        T = max(map(len, prompts))
        tokens = torch.zeros(len(prompts), T, dtype=torch.int64)
        mask = torch.zeros(len(prompts), T, dtype=torch.int64)
        for i, prompt in enumerate(prompts):
            tokens[i, T - len(prompt) :] = torch.tensor(prompt)
            mask[i, T - len(prompt) :] = 1
        device = self.options.device
        noise = torch.Generator(device).manual_seed(zlib.crc32(batch[0].input.encode()) ^ self.seed)
        grown = self.model.generate(
            tokens.to(device),
            mask.to(device),
            max_new_tokens=self.options.max_new_tokens,
            temperature=self.options.temperature if self.options.mode == "generate" else 0.0,
            top_p=self.options.top_p,
            stop_token_ids=self.stops,
            generator=noise,
        )
        texts = []
        for row in grown[:, T:].tolist():
            length = next((i for i, token in enumerate(row) if token in self.stops), len(row))
            texts.append((self.encoder.decode(row[:length]), length))
        return texts

    def _score(self, batch: Sequence[Sample]) -> list[Answer]:
        """Five summed log-probabilities of each prompt, with the free text before the action where it comes later."""
        from finseek.model import score_continuations

        written = [(ACTION_TAG, 0)] * len(batch) if self.order[0] == "action" else self._free_text(batch)
        answers = [Answer(text, tokens=n) for text, n in written]
        heads = {i: text.partition(ACTION_TAG)[0] for i, (text, _) in enumerate(written) if ACTION_TAG in text}
        prompts = [
            self.encoder.prompt_ids(batch[i]) + self.encoder.text_ids(head + ACTION_TAG) for i, head in heads.items()
        ]
        five = list(self.encoder.action_ids().values())
        scores = score_continuations(self.model, prompts, [five] * len(prompts), batch_size=max(len(prompts), 1))
        for (i, head), log_p in zip(heads.items(), scores, strict=True):
            best = ACTIONS[int(log_p.argmax())]
            answers[i] = Answer(f"{head}{ACTION_TAG}{best}</action>", tuple(map(float, log_p)), written[i][1])
        return answers
