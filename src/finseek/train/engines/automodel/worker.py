"""What each process of engine `automodel` does: AutoModel's recipe, with finseek's learning rate and steps."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import torch
import yaml
from nemo_automodel.components.config.loader import ConfigNode
from nemo_automodel.components.optim.scheduler import OptimizerParamScheduler
from nemo_automodel.components.training.step_scheduler import StepScheduler, StepSchedulerConfig
from nemo_automodel.recipes.llm.train_ft import TrainFinetuneRecipeForNextTokenPrediction

from finseek.checkpoint.automodel_cpu import patch_automodel_without_cuda
from finseek.core.errors import FinseekError, Stopped
from finseek.train.engines.automodel.recipe import FOLDER, RECIPE
from finseek.train.engines.automodel.tensor_parallel import register as register_tensor_parallel_plan
from finseek.train.job import TrainJob, TrainResult
from finseek.train.options import TrainOptions
from finseek.train.schedule import learning_rate
from finseek.train.state import LOG


class PlannedRate(OptimizerParamScheduler):
    """AutoModel's scheduler with the rates of :func:`finseek.train.schedule.learning_rate`."""

    options: TrainOptions
    total: int

    def get_lr(self, param_group: dict[str, Any]) -> float:
        """The rate of the next step."""
        return learning_rate(self.num_steps, self.total, self.options)


class PlannedSteps(StepScheduler):
    """AutoModel's steps, validated and saved at the same steps as in every engine."""

    save_at_validation: bool

    @property
    def is_val_step(self) -> bool:
        """At every n-th step and at the last."""
        last = self.step + 1 >= self.max_steps
        return ((self.step + 1) % self.val_every_steps == 0 or last) and not self.sigterm_flag

    @property
    def is_ckpt_step(self) -> bool:
        """At every n-th step, the last, when asked to stop, and where the weights may become the best."""
        saved = (self.step + 1) % self.ckpt_every_steps == 0 or self.step + 1 >= self.max_steps
        return saved or self.sigterm_received or (self.save_at_validation and self.is_val_step)


class Recipe(TrainFinetuneRecipeForNextTokenPrediction):
    """AutoModel's recipe; only its clock and its log are ours."""

    def __init__(self, config: ConfigNode, job: TrainJob, steps: int) -> None:
        super().__init__(config)
        typed = self.cfg.__dict__  # where its cached properties lie
        typed["lr_scheduler"] = _Rates(job.options, steps)
        typed["step_scheduler"] = _Steps(self.cfg.step_scheduler, job.options.keep == "best")

    def log_train_metrics(self, data: Any) -> None:
        """Write the step at once, since finseek follows the file."""
        super().log_train_metrics(data)
        if not math.isfinite(data.metrics["loss"]):
            raise FinseekError(
                f"training diverged: the loss of step {data.step + 1} is {data.metrics['loss']}, its gradient norm"
                f" {data.metrics['grad_norm']}; lower train.learning_rate or lengthen train.warmup_steps"
            )
        if self.dist_env.is_main:
            self.metric_logger_train.flush()

    def log_val_metrics(self, name: str, data: Any, logger: Any = None) -> None:
        """Likewise."""
        super().log_val_metrics(name, data, logger)
        if not math.isfinite(data.metrics["val_loss"]):
            raise FinseekError(
                f"training diverged: the validation loss of step {data.step + 1} is {data.metrics['val_loss']};"
                " lower train.learning_rate or lengthen train.warmup_steps"
            )
        if self.dist_env.is_main and logger is not None:
            logger.flush()


class _Rates:
    """Stands where AutoModel has the config of its scheduler."""

    def __init__(self, options: TrainOptions, steps: int) -> None:
        self.options, self.steps = options, steps

    def build(self, optimizer: list[Any], steps: StepScheduler) -> list[PlannedRate]:
        """A scheduler for each optimiser."""
        options = self.options
        kind = type("Rate", (PlannedRate,), {"options": options, "total": self.steps})
        common = {"init_lr": 0.0, "max_lr": options.learning_rate, "min_lr": 0.0, "lr_warmup_steps": 0}
        decay = {"start_wd": options.weight_decay, "end_wd": options.weight_decay, "wd_incr_steps": self.steps}
        style = {"lr_decay_steps": self.steps, "lr_decay_style": "constant", "wd_incr_style": "constant"}
        return [kind(each, **common, **decay, **style) for each in optimizer]


class _Steps:
    """Stands where AutoModel has the config of its steps."""

    def __init__(self, config: StepSchedulerConfig, save_at_validation: bool) -> None:
        self.config, self.save_at_validation = config, save_at_validation

    def build(self, *arguments: Any, **named: Any) -> StepScheduler:
        """Its scheduler, as one of ours."""
        steps = self.config.build(*arguments, **named)
        steps.__class__ = PlannedSteps
        steps.save_at_validation = self.save_at_validation
        return steps


def train_rank(job: TrainJob) -> TrainResult:
    """Train in this process, among those of the job.

    Raises:
        Stopped: when it was asked to, its state being saved.
        FinseekError: if it diverged.
    """
    torch.set_num_threads(job.options.threads)
    patch_automodel_without_cuda(TrainFinetuneRecipeForNextTokenPrediction.__module__)
    register_tensor_parallel_plan()
    folder = job.output / FOLDER
    config = yaml.safe_load((folder / RECIPE).read_text())
    steps = config["step_scheduler"]["max_steps"]
    recipe = Recipe(ConfigNode(config), job, steps)
    recipe.setup()
    recipe.run_train_validation_loop()
    done = recipe.step_scheduler.step
    if done < steps:
        raise Stopped(
            f"training stopped by SIGUSR1 after step {done} of {steps};"
            " its state is saved: start the same run again to go on"
        )
    pointer = "LOWEST_VAL" if job.options.keep == "best" else "LATEST"
    return TrainResult(_weights(folder / "checkpoints", pointer), job.output / LOG, done, 0, 0, 0.0, 0.0)


def _weights(checkpoints: Path, pointer: str) -> Path:
    """The Hugging Face folder of a checkpoint: consolidated weights, or the adapter."""
    place = (checkpoints / pointer).resolve()
    if place.suffix == ".txt" or place.is_file():
        place = checkpoints / place.read_text().strip()
    model = place / "model"
    return model / "consolidated" if (model / "consolidated").is_dir() else model
