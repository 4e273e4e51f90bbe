"""What every engine needs before its first step: encoded samples, the batches of all steps, the first weights."""

from __future__ import annotations

from dataclasses import dataclass

from finseek.core.progress import Progress, silent
from finseek.model import DeepSeekV3
from finseek.samples import Encoder, Sample, load_samples
from finseek.train.check.job import CheckReport, check_job
from finseek.train.check.probe import Subject
from finseek.train.data import BatchPlan, TokenSet, encode_samples_of
from finseek.train.engines.first import check_base, first_model
from finseek.train.job import TrainJob


@dataclass(frozen=True)
class Prepared:
    """Samples of a job as arrays, and its steps.

    Attributes:
        job: the job.
        encoder: of its tokenizer.
        samples: to learn from.
        training: the same, encoded.
        validation: samples that are only looked at.
        plan: the samples of each step.
        total: steps of the job.
    """

    job: TrainJob
    encoder: Encoder
    samples: list[Sample]
    training: TokenSet
    validation: TokenSet
    plan: BatchPlan
    total: int

    @property
    def validate_every(self) -> int:
        """Steps between validations."""
        return self.job.options.val_check_interval or self.plan.steps_per_epoch

    def first_model(self) -> DeepSeekV3:
        """The model before the first step."""
        return first_model(self.job, self.encoder)

    def check(self, subject: DeepSeekV3 | Subject) -> CheckReport:
        """What is looked at before the first step."""
        options, epoch = self.job.options, self.plan.steps_per_epoch
        return check_job(subject, self.samples, self.training, self.encoder, options, self.total, epoch)


def prepare(job: TrainJob, progress: Progress = silent) -> Prepared:
    """Encode the samples of a job, or take their tokens from its cache, and plan its steps.

    Raises:
        ConfigError: for a checkpoint that has not all tokens, or too short a context.
        InputError: for samples that cannot be trained on.
    """
    encoder = Encoder(job.tokenizer, job.template)
    check_base(job, encoder)
    samples = load_samples(job.training)
    training = encode_samples_of(job, job.training, progress)
    validation = encode_samples_of(job, job.validation)
    plan = BatchPlan(training.lengths, job.options.global_batch_size, job.seed)
    total = job.options.max_steps or job.options.epochs * plan.steps_per_epoch
    return Prepared(job, encoder, samples, training, validation, plan, total)
