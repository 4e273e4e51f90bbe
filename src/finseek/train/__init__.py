"""Training: one job, several engines, one result."""

from finseek.train.engines import engine_or_stand_in, load_engine
from finseek.train.job import Engine, ModelInit, Node, TrainJob, TrainResult
from finseek.train.options import LoraOptions, ModelOptions, ParallelOptions, TrackingOptions, TrainOptions

__all__ = [
    "Engine",
    "LoraOptions",
    "ModelInit",
    "ModelOptions",
    "Node",
    "ParallelOptions",
    "TrackingOptions",
    "TrainJob",
    "TrainOptions",
    "TrainResult",
    "engine_or_stand_in",
    "load_engine",
]
