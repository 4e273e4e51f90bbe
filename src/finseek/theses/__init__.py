"""Theses: dated opinions, read from files, cleaned, and split by time."""

from finseek.core.records import write_records
from finseek.theses.folds import Fold, make_folds
from finseek.theses.near_duplicates import near_duplicates
from finseek.theses.options import FoldOptions, SplitOptions, ThesesOptions
from finseek.theses.read import parse_theses, read_theses, write_theses
from finseek.theses.records import Reject, Thesis, iterate_theses, load_theses, thesis_uid
from finseek.theses.split import Split, split_by_time
from finseek.theses.split_files import iterate_split, load_split, write_folds, write_split

__all__ = [
    "Fold",
    "FoldOptions",
    "Reject",
    "Split",
    "SplitOptions",
    "ThesesOptions",
    "Thesis",
    "iterate_split",
    "iterate_theses",
    "load_split",
    "load_theses",
    "make_folds",
    "near_duplicates",
    "parse_theses",
    "read_theses",
    "split_by_time",
    "thesis_uid",
    "write_folds",
    "write_records",
    "write_split",
    "write_theses",
]
