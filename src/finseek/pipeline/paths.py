"""Where the artifacts of a run lie: the only file that knows."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class RunPaths:
    """The files of one run folder."""

    root: Path

    @property
    def state(self) -> Path:
        """Where the run stands while it runs."""
        return self.root / "state.json"

    @property
    def manifest(self) -> Path:
        """Inputs, config, code, environment, stages and hashes; written last."""
        return self.root / "manifest.json"

    @property
    def lock(self) -> Path:
        """Held by the one process that works in the folder."""
        return self.root / ".lock"

    @property
    def theses(self) -> Path:
        """Folder of all.jsonl, rejects.jsonl, summary.json."""
        return self.root / "theses"

    @property
    def prices(self) -> Path:
        """Folder of the price table that the run used and its summary."""
        return self.root / "prices"

    @property
    def split(self) -> Path:
        """Folder of train.parquet, validation.parquet, test.parquet, certificate.json."""
        return self.root / "split"

    @property
    def samples(self) -> Path:
        """Folder of the chat samples and the tokenizer."""
        return self.root / "samples"

    @property
    def train(self) -> Path:
        """Folder of checkpoint/ and train_log.jsonl."""
        return self.root / "train"

    @property
    def evaluate(self) -> Path:
        """Folder of eval_results.csv and metrics.json."""
        return self.root / "evaluate"

    @property
    def answers(self) -> Path:
        """Every answer that a model gave, so that none is asked for twice; a cache, not in the manifest."""
        return self.root / "cache" / "answers.jsonl"

    @property
    def placebos(self) -> Path:
        """Folder of the runs on changed records; no artifact, not in the manifest."""
        return self.root / "placebos"

    @property
    def backtest(self) -> Path:
        """Folder of equity.csv, trades.csv, metrics.json."""
        return self.root / "backtest"

    @property
    def audit(self) -> Path:
        """Folder of the audits' findings."""
        return self.root / "audit"

    @property
    def stale(self) -> Path:
        """What an earlier config made and this one would not; no artifact."""
        return self.root / "stale"

    @property
    def logs(self) -> Path:
        """Folder of logs; no artifact, not in the manifest."""
        return self.root / "logs"

    @property
    def model_card(self) -> Path:
        """README.md beside the checkpoint, in the form that the Hugging Face hub reads."""
        return self.train / "README.md"

    @property
    def report_html(self) -> Path:
        """The report for people."""
        return self.root / "report.html"

    @property
    def report_json(self) -> Path:
        """The report for machines."""
        return self.root / "report.json"

    @property
    def report_schema(self) -> Path:
        """JSON schema of report.json."""
        return self.root / "report.schema.json"
