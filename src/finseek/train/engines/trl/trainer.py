"""TRL's SFTTrainer, fed with global batches: its samples, their order and the loss are those of every engine.

b rows of a pass   T tokens
"""

from __future__ import annotations

import math
import random
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, NoReturn

import numpy as np
import torch
import transformers
from datasets import Dataset
from torch import Tensor, nn
from torch.utils.data import DataLoader
from transformers import PreTrainedTokenizerFast, PrinterCallback, TrainerCallback
from trl import SFTConfig, SFTTrainer

from finseek.model.loss import IGNORED
from finseek.train.check.probe import Subject
from finseek.train.engines.batches import GlobalBatches, StepBatch, TensorBatch
from finseek.train.engines.optimizer import adamw
from finseek.train.job import TrainJob
from finseek.train.schedule import learning_rate

FIGURES = ("loss_sum", "action_sum", "action_count")


class StepTrainer(SFTTrainer):
    """One of its steps is one global batch, in as many passes as it takes.

    The loss is Σ w·nll / Σ w over the whole batch, whatever the passes. Nothing is prepared, cut or dropped by TRL:
    batches come encoded.

    Args:
        model: of :mod:`finseek.train.engines.trl.model`.
        job: that is trained.
        total_steps: of the job, which the learning rate goes by.
        bf16: compute in bfloat16.
        fault: called before an update that must not be made; it raises.
        after_step: called after every update.
    """

    def __init__(
        self,
        model: nn.Module,
        job: TrainJob,
        total_steps: int,
        bf16: bool,
        fault: Callable[[str], NoReturn],
        after_step: Callable[[StepBatch], None],
    ) -> None:
        options = job.options
        config = SFTConfig(
            output_dir=str(job.output),
            max_steps=total_steps,
            per_device_train_batch_size=1,
            gradient_accumulation_steps=1,
            max_grad_norm=0.0,
            bf16=bf16,
            use_cpu=not torch.cuda.is_available(),
            gradient_checkpointing=options.gradient_checkpointing,
            gradient_checkpointing_kwargs={"use_reentrant": False},
            seed=job.seed % 2**32,
            max_length=None,
            dataset_kwargs={"skip_prepare_dataset": True},
            remove_unused_columns=False,
            router_aux_loss_coef=0.0,
            logging_strategy="no",
            save_strategy="no",
            eval_strategy="no",
            report_to="none",
            disable_tqdm=True,
        )
        trained = {name: parameter.detach().clone() for name, parameter in _trainable(model)}
        super().__init__(
            model=model,
            args=config,
            data_collator=lambda rows: rows,
            train_dataset=Dataset.from_dict({"input_ids": [[0]], "labels": [[0]]}),  # asked for, and never read
            processing_class=PreTrainedTokenizerFast(tokenizer_file=str(job.tokenizer / "tokenizer.json")),
        )
        for name, parameter in _trainable(model):
            parameter.data = trained[name].to(parameter.device)  # TRL rounds adapters of 4-bit models to bfloat16
        self.options, self.total_steps, self.fault = options, total_steps, fault
        self.last: dict[str, Any] = {}
        self.generators: dict[str, Any] | None = None
        self.optimizer = self.adamw = adamw(self.model, options)
        self.lr_scheduler = torch.optim.lr_scheduler.LambdaLR(self.optimizer, lambda step: 1.0)  # each step sets it
        self.remove_callback(PrinterCallback)
        self.add_callback(_AfterStep(self, after_step))

    def subject(self) -> Subject:
        """What the checks ask of this model; padding is masked by its place, whatever its token."""
        model: Any = self.model
        config = model.config.get_text_config()
        ends = config.eos_token_id if isinstance(config.eos_token_id, list) else [config.eos_token_id]

        def loss(batch: TensorBatch) -> Tensor:
            with self.compute_loss_context_manager():
                return self.pass_sums(model, batch)[0] / batch.weight.sum()

        def token_loss(batch: TensorBatch) -> Tensor:
            with self.compute_loss_context_manager():
                return self.token_loss(model, batch)

        def logits(batch: TensorBatch) -> Tensor:
            given = {} if batch.mask is None else {"attention_mask": batch.mask.long()}
            with self.compute_loss_context_manager():
                found: Tensor = model(input_ids=batch.input_ids, use_cache=False, **given).logits
                return found

        stops = tuple(end for end in ends if end is not None)
        return Subject(model, loss, token_loss, logits, config.bos_token_id, stops, None)

    def train_on(self, batches: GlobalBatches) -> None:
        """Train on the global batches that are left."""
        self.batches, self.args.max_steps = batches, len(batches)
        self.train()

    def training_state(self) -> dict[str, Any]:
        """Everything that the next step depends on besides its batch."""
        cuda = torch.cuda.get_rng_state() if torch.cuda.is_available() else None
        return {
            "weights": self.trained_weights(),
            "optimizer": self.adamw.state_dict()["state"],
            "rng": torch.get_rng_state(),
            "cuda_rng": cuda,
        }

    def load_training_state(self, state: dict[str, Any]) -> None:
        """Take up what :meth:`training_state` gave; the generators at the first step, for the loop may draw before."""
        self.fill(state["weights"])
        groups = self.adamw.state_dict()["param_groups"]
        self.adamw.load_state_dict({"state": state["optimizer"], "param_groups": groups})
        self.generators = state

    def get_train_dataloader(self) -> DataLoader[Any]:
        """The batches as they were given; the loader draws nothing from torch's generator."""
        return DataLoader(self.batches, batch_size=None, collate_fn=lambda each: each, generator=torch.Generator())

    def get_batch_samples(self, epoch_iterator: Iterator[Any], num_batches: int, device: Any) -> tuple[list[Any], None]:
        """One global batch."""
        return [next(epoch_iterator)], None

    def floating_point_ops(self, inputs: Any) -> int:
        """Not counted here."""
        return 0

    def training_step(self, model: nn.Module, batch: StepBatch, num_items_in_batch: Any = None) -> Tensor:
        """Forward and backward passes of one global batch; its figures are left in ``last``."""
        if self.generators is not None:
            torch.set_rng_state(self.generators["rng"])
            if self.generators["cuda_rng"] is not None:
                torch.cuda.set_rng_state(self.generators["cuda_rng"])
            self.generators = None
        model.train()
        self.batch, options = batch, self.options
        rate = learning_rate(batch.step, self.total_steps, options)
        for group in self.adamw.param_groups:
            group["lr"] = rate
        sums = torch.zeros(3, dtype=torch.float64, device=self.args.device)
        for micro in batch.micro:
            with self.compute_loss_context_manager(), self.maybe_activation_offload_context:
                loss, figures = self.pass_sums(model, micro)
            self.accelerator.backward(loss / batch.total_weight)
            sums += figures
        parameters = [parameter for _, parameter in _trainable(self.model)]
        norm = float(torch.nn.utils.clip_grad_norm_(parameters, options.gradient_clip_val or math.inf))
        self.last = dict(zip(FIGURES, sums.tolist(), strict=True)) | {
            "mtp_loss": 0.0,
            "balance_loss": 0.0,
            "loss_weight": batch.total_weight,
            "grad_norm": norm,
            "learning_rate": rate,
            "router_load": [],
        }
        if not math.isfinite(norm) or not math.isfinite(self.last["loss_sum"]):
            self.fault(f"the loss of step {batch.step + 1} is {self.last['loss_sum']:g}, its gradient norm {norm:g}")
        return (sums[0] / batch.total_weight).float()

    def token_loss(self, model: nn.Module, batch: TensorBatch) -> Tensor:
        """Nats of each token that is counted, with its graph, (b, T); 0 elsewhere."""
        counted = (batch.weight > 0) | batch.action
        labels = batch.input_ids.masked_fill(~counted, IGNORED)
        given = {} if batch.mask is None else {"attention_mask": batch.mask.long()}
        out = model(input_ids=batch.input_ids, labels=labels, fused_lm_head=True, **given)
        return nn.functional.pad(-out.log_probs.float(), (1, 0))

    def pass_sums(self, model: nn.Module, batch: TensorBatch) -> tuple[Tensor, Tensor]:
        """Σ w·nll with its graph, and (the same, Σ nll of action tokens, their number) in float64, of one pass."""
        batch = TensorBatch(*(None if each is None else each.to(self.args.device) for each in batch))
        nll, weight, action = self.token_loss(model, batch), batch.weight, batch.action
        with torch.no_grad():
            exact = nll.double()
            figures = torch.stack([(exact * weight).sum(), (exact * action).sum(), action.sum().double()])
        return (nll * weight).sum(), figures

    @torch.no_grad()
    def validation_sums(self, batches: Iterable[TensorBatch]) -> tuple[float, float]:
        """Σ w·nll and Σ nll of action tokens."""
        sums = torch.zeros(3, dtype=torch.float64, device=self.args.device)
        self.model.eval()
        for batch in batches:
            with self.compute_loss_context_manager():
                sums += self.pass_sums(self.model, batch)[1]
        self.model.train()
        return float(sums[0]), float(sums[1])

    def trained_weights(self) -> dict[str, Tensor]:
        """What training changes."""
        return {name: parameter.detach() for name, parameter in _trainable(self.model)}

    @torch.no_grad()
    def fill(self, weights: dict[str, Tensor]) -> None:
        """Take up what :meth:`trained_weights` gave."""
        for name, parameter in _trainable(self.model):
            parameter.copy_(weights[name])


class _AfterStep(TrainerCallback):
    def __init__(self, trainer: StepTrainer, after_step: Callable[[StepBatch], None]) -> None:
        self.trainer, self.after_step = trainer, after_step

    def on_step_end(self, *args: Any, **kwargs: Any) -> None:
        self.after_step(self.trainer.batch)


def _trainable(model: nn.Module) -> Iterator[tuple[str, nn.Parameter]]:
    return ((name, parameter) for name, parameter in model.named_parameters() if parameter.requires_grad)


@contextmanager
def quiet() -> Iterator[None]:
    """Transformers' and TRL's advice concerns loops that we don't use; the seeds that they set are put back."""
    level, bars = transformers.logging.get_verbosity(), transformers.logging.is_progress_bar_enabled()
    python, numpy = random.getstate(), np.random.get_state()
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            for package in ("transformers", "trl", "peft", "accelerate", "bitsandbytes", r"torch\.utils\.data"):
                warnings.filterwarnings("ignore", module=rf"{package}(\..*)?$")
            yield
    finally:
        transformers.logging.set_verbosity(level)
        if bars:
            transformers.logging.enable_progress_bar()
        random.setstate(python)
        np.random.set_state(numpy)
