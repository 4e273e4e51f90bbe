"""The config sections `model`, `train`, `parallel` and `tracking`."""

from __future__ import annotations

from datetime import date
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, model_validator

from finseek.core.options import Options


class ModelOptions(Options):
    """What is trained: a preset from scratch, or an existing checkpoint."""

    preset: str | None = Field(None, description="Name of a shipped architecture, trained from random weights.")
    path: Path | None = Field(None, description="Checkpoint folder in the Hugging Face layout to start from.")
    overrides: dict[str, int | float | bool | str | None] = Field(
        {}, description="Fields of the architecture (Hugging Face names) that replace the preset's."
    )
    knowledge_cutoff: date | None = Field(
        None,
        description="Last day that the starting checkpoint may have read about; the audit warns when tests precede it.",
    )

    @model_validator(mode="after")
    def _one_origin(self) -> ModelOptions:
        if (self.preset is None) == (self.path is None):
            raise ValueError("give exactly one of preset (random weights) and path (an existing checkpoint)")
        if self.path is not None and self.overrides:
            raise ValueError("overrides change a preset's architecture; a checkpoint brings its own: remove overrides")
        return self


class LossWeights(Options):
    """Weight of a token's loss by its part of the answer."""

    action: float = Field(1.0, ge=0, description="Weight of the action string and its closing tag.")
    rest: float = Field(1.0, ge=0, description="Weight of every other token that is trained on.")

    @model_validator(mode="after")
    def _something(self) -> LossWeights:
        if self.action == self.rest == 0:
            raise ValueError("both loss weights are 0, so nothing would be learned: make one positive")
        return self


class LoraOptions(Options):
    """Low-rank adapters (arXiv 2106.09685) instead of training every weight."""

    rank: int = Field(32, ge=1, description="Rank of the adapters.")
    alpha: float = Field(64.0, gt=0, description="Scale of an adapter: alpha / rank, with rslora alpha / sqrt(rank).")
    dropout: float = Field(0.05, ge=0, lt=1, description="Dropout before an adapter; 0 on routed experts.")
    bias: Literal["none", "all", "lora_only"] = Field("none", description="Biases that are trained besides.")
    target_modules: str | tuple[str, ...] = Field(
        "attention", description="A preset (attention, attention+experts, all) or the last parts of module names."
    )
    rslora: bool = Field(
        False, description="Scale by alpha / sqrt(rank) (arXiv 2312.03732); engines lightning and trl."
    )
    loftq: bool = Field(False, description="LoftQ first weights for a quantised model (arXiv 2310.08659); engine trl.")


class TrainOptions(Options):
    """How the model is trained. One step is one update of the optimiser, on one global batch."""

    engine: Literal["lightning", "automodel", "trl", "megatron"] = Field(
        "lightning", description="Program that trains."
    )
    lora: LoraOptions | None = Field(None, description="Adapters to train; null trains every weight.")
    load_in_4bit: bool = Field(False, description="Keep the frozen weights in 4 bits (QLoRA); engine trl with lora.")
    unsloth: bool = Field(False, description="Unsloth's loader and checkpointing; engine trl on a GPU.")
    gradient_checkpointing: bool = Field(False, description="Compute each layer again in the backward pass.")
    packed_sequence_size: int = Field(
        0, ge=0, description="Tokens of a row that several samples share without seeing each other; 0 pads instead."
    )
    seeds: tuple[Annotated[int, Field(ge=0)], ...] = Field(
        (), description="Train once for each; the first goes on. Empty: run.seed alone."
    )
    epochs: int = Field(3, ge=1, description="Passes over the training samples, unless max_steps is set.")
    max_steps: int | None = Field(None, ge=1, description="Number of steps; decides instead of epochs when set.")
    global_batch_size: int = Field(64, ge=1, description="Samples of one step, over all devices.")
    micro_batch_size: int = Field(64, ge=1, description="Samples of one forward pass on one device.")
    seq_length: int = Field(1024, ge=8, description="Longest sample in tokens; longer ones are cut and counted.")
    learning_rate: float = Field(1e-3, gt=0, description="Highest learning rate, reached after the warm-up.")
    warmup_steps: int = Field(0, ge=0, description="Steps of linear warm-up.")
    min_learning_rate_ratio: float = Field(0.1, ge=0, le=1, description="Last rate of the cosine over the highest.")
    weight_decay: float = Field(0.1, ge=0, description="AdamW decay of matrices; vectors are not decayed.")
    betas: tuple[float, float] = Field((0.9, 0.95), description="AdamW moments.")
    gradient_clip_val: float = Field(1.0, ge=0, description="Largest norm of the whole gradient; 0 does not clip.")
    precision: Literal["auto", "fp32", "bf16"] = Field("auto", description="auto: bf16 on a GPU, fp32 on a CPU.")
    val_check_interval: int | None = Field(None, ge=1, description="Steps between validations; null: every epoch.")
    log_every_n_steps: int = Field(10, ge=1, description="Steps between lines of train_log.jsonl.")
    checkpoint_every: int = Field(200, ge=1, description="Steps between states from which a killed run resumes.")
    keep_states: int = Field(1, ge=1, description="Newest resume states that are kept.")
    keep: Literal["best", "last"] = Field(
        "best", description="Weights that become the checkpoint: of the lowest validation loss, or of the last step."
    )
    answer_only_loss: bool = Field(True, description="Train on the answer alone, not on the prompt.")
    loss_weights: LossWeights = Field(LossWeights(), description="Weights of the action and of the rest.")
    average_decay: float = Field(
        0.0, ge=0, lt=1, description="Decay of the moving average of weights that is validated and kept; 0: none."
    )
    router_bias_update_rate: float = Field(
        0.001, ge=0, description="Step of the router bias towards even expert load after each update (gamma)."
    )
    balance_loss: float = Field(1e-4, ge=0, description="Weight of the sequence-wise balance loss (alpha).")
    mtp_loss: float = Field(0.3, ge=0, description="Weight of the multi-token-prediction loss (lambda).")
    check: bool = Field(
        True,
        description="Look at masks, gradients, experts and one batch before the first step; engines lightning and trl.",
    )
    threads: int = Field(2, ge=1, description="CPU threads; a part of the result, since sums depend on it.")

    @model_validator(mode="after")
    def _divisible(self) -> TrainOptions:
        if self.global_batch_size % self.micro_batch_size:
            raise ValueError(
                f"global_batch_size {self.global_batch_size} must be a multiple of"
                f" micro_batch_size {self.micro_batch_size}"
            )
        if not all(0 <= beta < 1 for beta in self.betas):
            raise ValueError(f"betas {self.betas} must lie in [0, 1)")
        if self.load_in_4bit and self.lora is None:
            raise ValueError("load_in_4bit freezes every weight, so there is nothing to train: add lora")
        if self.packed_sequence_size and self.packed_sequence_size < self.seq_length:
            raise ValueError(
                f"packed_sequence_size {self.packed_sequence_size} must be 0 or at least seq_length {self.seq_length}"
            )
        if len(set(self.seeds)) < len(self.seeds):
            raise ValueError(f"seeds {list(self.seeds)} repeat: name each once")
        return self

    @model_validator(mode="after")
    def _of_one_engine(self) -> TrainOptions:
        for name in ("load_in_4bit", "unsloth"):
            if getattr(self, name) and self.engine != "trl":
                raise ValueError(f"{name} is known to engine trl alone, not to {self.engine}: set train.engine to trl")
        if self.lora is not None and self.lora.loftq and not self.load_in_4bit:
            raise ValueError("lora.loftq makes up for a quantisation, and there is none: set train.load_in_4bit")
        if self.lora is not None and self.average_decay:
            raise ValueError("average_decay averages all weights, and lora trains adapters alone: set it to 0")
        return self


class ParallelOptions(Options):
    """How the model and its batch are laid over devices."""

    num_nodes: int = Field(1, ge=1, description="Machines.")
    devices_per_node: int = Field(1, ge=1, description="Processes, hence GPUs, of one machine.")
    tensor_model_parallel_size: int = Field(1, ge=1, description="Devices that share each matrix.")
    pipeline_model_parallel_size: int = Field(1, ge=1, description="Devices that share the layers.")
    expert_model_parallel_size: int = Field(1, ge=1, description="Devices that share the routed experts.")
    context_parallel_size: int = Field(1, ge=1, description="Devices that share each sequence.")
    sharding: Literal["fsdp", "none"] = Field(
        "fsdp", description="fsdp: replicas share weights, gradients and optimiser (FSDP2); none: each holds all (DDP)."
    )

    @model_validator(mode="after")
    def _divides(self) -> ParallelOptions:
        shared = self.tensor_model_parallel_size * self.pipeline_model_parallel_size * self.context_parallel_size
        if self.world_size % shared:
            raise ValueError(
                f"tensor x pipeline x context parallel size is {shared}, which does not divide"
                f" {self.num_nodes} x {self.devices_per_node} = {self.world_size} devices"
            )
        if self.world_size // self.pipeline_model_parallel_size % self.expert_model_parallel_size:
            raise ValueError(
                f"expert_model_parallel_size {self.expert_model_parallel_size} does not divide the"
                f" {self.world_size // self.pipeline_model_parallel_size} devices of a pipeline stage"
            )
        return self

    @property
    def world_size(self) -> int:
        """Number of processes."""
        return self.num_nodes * self.devices_per_node


class TrackingOptions(Options):
    """Where the training curves go besides train_log.jsonl."""

    tensorboard: bool = Field(False, description="Write TensorBoard records into the run folder.")
    wandb: bool = Field(False, description="Send the curves to Weights & Biases.")
    mlflow: bool = Field(False, description="Send the curves to MLflow.")
    project: str = Field("finseek", min_length=1, description="Project or experiment name there.")
    offline: bool = Field(True, description="Keep Weights & Biases and MLflow records in the run folder alone.")

    @property
    def backends(self) -> tuple[str, ...]:
        """Names of the trackers that are on."""
        return tuple(name for name in ("tensorboard", "wandb", "mlflow") if getattr(self, name))
