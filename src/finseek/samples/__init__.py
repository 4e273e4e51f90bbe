"""Samples: prompts and answers, the tokenizer, and the loss mask."""

from finseek.samples.encode import Encoded, Encoder
from finseek.samples.files import train_split_tokenizer, write_sample_files
from finseek.samples.options import PromptOptions
from finseek.samples.prompts import History, build_samples
from finseek.samples.records import Sample, iterate_samples, load_samples, write_samples
from finseek.samples.tokenizer import train_tokenizer

__all__ = [
    "Encoded",
    "Encoder",
    "History",
    "PromptOptions",
    "Sample",
    "build_samples",
    "iterate_samples",
    "load_samples",
    "train_split_tokenizer",
    "train_tokenizer",
    "write_sample_files",
    "write_samples",
]
