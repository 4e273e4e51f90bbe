"""What every engine needs before its first step: encoded samples, the batches of all steps, the first weights."""

from __future__ import annotations

from dataclasses import dataclass

from finseek.core.progress import Progress, silent
from finseek.model import DeepSeekConfig, DeepSeekV3
from finseek.samples import Encoder, load_samples
from finseek.train.data import BatchPlan, TokenSet, encode_samples
from finseek.train.engines.first import check_fit, first_model
from finseek.train.job import TrainJob


@dataclass(frozen=True)
class Prepared:
    """Samples of a job as arrays, and its steps.

    Attributes:
        job: the job.
        encoder: of its tokenizer.
        training: samples to learn from.
        validation: samples that are only looked at.
        plan: the samples of each step.
        total: steps of the job.
    """

    job: TrainJob
    encoder: Encoder
    training: TokenSet
    validation: TokenSet
    plan: BatchPlan
    total: int

    def first_model(self) -> DeepSeekV3:
        """The model before the first step."""
        return first_model(self.job, self.encoder)


def prepare(job: TrainJob, progress: Progress = silent) -> Prepared:
    """Encode the samples of a job and plan its steps.

    Raises:
        ConfigError: for a checkpoint that has not all tokens, or too short a context.
        InputError: for samples that cannot be trained on.
    """
    encoder = Encoder(job.tokenizer, job.template)
    if job.init.path is not None:
        check_fit(DeepSeekConfig.from_json(job.init.path), job, encoder)
    training = encode_samples(load_samples(job.training), encoder, job.options.seq_length, progress)
    validation = encode_samples(load_samples(job.validation), encoder, job.options.seq_length)
    plan = BatchPlan(training.lengths, job.options.global_batch_size, job.seed)
    total = job.options.max_steps or job.options.epochs * plan.steps_per_epoch
    return Prepared(job, encoder, training, validation, plan, total)
