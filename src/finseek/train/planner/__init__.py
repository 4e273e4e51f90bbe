"""Memory, time and cost of a training layout, before anybody rents it."""

from finseek.train.planner.hardware import GIB, HARDWARE, PRECISIONS, Hardware, Precision
from finseek.train.planner.memory import Memory, activations_by_layer, layer_activations, memory
from finseek.train.planner.report import TRAITS, Report, lines, plan_config, refusal, workload
from finseek.train.planner.search import Plan, Space, best, cheapest, divides, layouts, plan, smallest
from finseek.train.planner.throughput import tokens_per_second
from finseek.train.planner.workload import Layout, Workload, adapter_parameters

__all__ = [
    "GIB",
    "HARDWARE",
    "PRECISIONS",
    "TRAITS",
    "Hardware",
    "Layout",
    "Memory",
    "Plan",
    "Precision",
    "Report",
    "Space",
    "Workload",
    "activations_by_layer",
    "adapter_parameters",
    "best",
    "cheapest",
    "divides",
    "layer_activations",
    "layouts",
    "lines",
    "memory",
    "plan",
    "plan_config",
    "refusal",
    "smallest",
    "tokens_per_second",
    "workload",
]
