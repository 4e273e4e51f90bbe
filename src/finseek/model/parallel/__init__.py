"""The model over many processes: the only package of this layer that knows of them."""

from finseek.model.parallel.apply import ParallelModel, parallelize
from finseek.model.parallel.exchange import ExpertExchange
from finseek.model.parallel.layout import Layout, build_mesh, check_layout
from finseek.model.parallel.pipeline import PipelineStageModel, pipeline_schedule

__all__ = [
    "ExpertExchange",
    "Layout",
    "ParallelModel",
    "PipelineStageModel",
    "build_mesh",
    "check_layout",
    "parallelize",
    "pipeline_schedule",
]
