"""What AutoModel 0.7 cannot do with a DeepSeek-V3, refused before any work, each with its reason."""

from __future__ import annotations

import warnings

from finseek.checkpoint.fp8 import FORMATS
from finseek.checkpoint.shards import read_checkpoint
from finseek.core.errors import ConfigError, Note
from finseek.model import DeepSeekConfig
from finseek.model.parallel.layout import check_tensor_parallel
from finseek.train.engines.automodel.recipe import Machine, Sizes
from finseek.train.job import TrainJob


def check_job_for_automodel(job: TrainJob, machine: Machine) -> None:
    """Refuse what would be wrong or dropped; say what differs.

    Raises:
        ConfigError: names the key, the reason and the remedy.
    """
    options, parallel = job.options, job.parallel
    weights, sizes = options.loss_weights, Sizes.of(job)
    init = job.init
    config = DeepSeekConfig.from_json(init.path) if init.path else DeepSeekConfig.preset(init.preset, **init.overrides)
    held = read_checkpoint(job.init.path).tensors.values() if job.init.path else ()
    rules = (
        (
            parallel.tensor_model_parallel_size > 1 and parallel.context_parallel_size > 1,
            f"parallel.tensor_model_parallel_size {parallel.tensor_model_parallel_size} beside"
            f" context_parallel_size {parallel.context_parallel_size}: Transformer Engine's attention, which splits"
            " sequences, does not know finseek's shares of heads: set one of them to 1",
        ),
        (
            parallel.context_parallel_size > 1 and not machine.transformer_engine,
            f"parallel.context_parallel_size {parallel.context_parallel_size}: AutoModel splits sequences only in"
            " Transformer Engine's attention, which is not installed here: set it to 1",
        ),
        (
            parallel.sharding == "none" and sizes.replicas > 1,
            f"parallel.sharding none: AutoModel always shards weights over its {sizes.replicas} replicas (FSDP2): set"
            " it to fsdp, or use engine lightning",
        ),
        (
            options.packed_sequence_size > 0,
            f"train.packed_sequence_size {options.packed_sequence_size}: without Transformer Engine AutoModel's"
            " attention lets packed samples see each other, and with it packs in an order of its own: set it to 0",
        ),
        (
            weights.action != weights.rest,
            f"train.loss_weights {weights.action:g} and {weights.rest:g}: AutoModel weighs all tokens alike: make them"
            " equal, or use engine lightning",
        ),
        (
            options.average_decay > 0,
            f"train.average_decay {options.average_decay:g}: AutoModel keeps no average of weights: set it to 0",
        ),
        (
            options.load_in_4bit,
            "train.load_in_4bit: routed experts cannot be kept in 4 bits in AutoModel 0.7: set it to false",
        ),
        (
            options.lora is not None and (options.lora.bias != "none" or options.lora.rslora or options.lora.loftq),
            "train.lora: bias, rslora and loftq are not known to AutoModel: leave them out, or use engine trl",
        ),
        (
            options.lora is not None and job.init.path is None,
            "train.lora on random weights (model.preset) leaves an adapter of a model that nobody has: give model.path",
        ),
        (
            parallel.pipeline_model_parallel_size > 1 and any(info.dtype in FORMATS for info in held),
            f"model.path {job.init.path} is FP8, which AutoModel 0.7 cannot load into a pipeline: run finseek"
            " checkpoint dequantize first, or set parallel.pipeline_model_parallel_size to 1",
        ),
        (
            sizes.passes < parallel.pipeline_model_parallel_size,
            f"train.global_batch_size {options.global_batch_size} makes {sizes.passes} forward passes of"
            f" {options.micro_batch_size} in each replica, fewer than the {parallel.pipeline_model_parallel_size}"
            " stages of the pipeline: raise it, or lower train.micro_batch_size",
        ),
    )
    for broken, message in rules:
        if broken:
            raise ConfigError(message)
    check_tensor_parallel(config, parallel.tensor_model_parallel_size)
    for said, message in (
        (
            config.num_nextn_predict_layers > 0 and options.mtp_loss > 0,
            "AutoModel 0.7 does not train the multi-token-prediction layers: train.mtp_loss is not used",
        ),
        (
            options.balance_loss > 0 and options.micro_batch_size > 1,
            "AutoModel takes the balance loss over a forward pass, not over each sequence",
        ),
    ):
        if said:
            warnings.warn(message, Note, stacklevel=3)
