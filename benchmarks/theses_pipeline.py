"""CPU seconds and peak memory of ``finseek run CONFIG --until samples``: theses in XML to samples.

    python benchmarks/theses_pipeline.py [--source FOLDER_OR_ZIP] [--copies 1] [--repeat 5] [--json FILE]

No prices, and a tokenizer that is there already, so that none is trained. Without a source 7,520 theses of the usual
length are made from a seed. With ``--copies 20`` each file is repeated under 20 tickers. The peer does parse, split and
export with ElementTree, json and pandas, in the way in which such scripts are written; ours also hashes what it read
and wrote and leaves a manifest. Both run in fresh processes, in turns, from compiled files; figures are of the whole
process from start to exit, and ``work`` leaves out the imports. The number of records that come out must agree.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import subprocess
import sys
import tempfile
import zipfile
from datetime import date, timedelta
from pathlib import Path
from random import Random
from statistics import median

from finseek.samples import train_tokenizer

OURS = """
import sys, time
from pathlib import Path
from finseek.cli.main import main
source, out = Path(sys.argv[1]), Path(sys.argv[2])
config = out.with_suffix(".yaml")
config.write_text(f"run: {{name: {out.name}, output_dir: {out.parent}}}\\ntheses: {{source: {source}}}\\n"
    "split: {train_end: 2024-12-31, test_start: 2025-01-01, purge: false}\\n"
    f"prompt: {{tokenizer: {out.parent / 'tokenizer'}}}\\n")
sys.argv = ["finseek", "--quiet", "run", str(config), "--until", "samples", "--json"]
from finseek.cli.run import load
load(config, None)
import finseek.pipeline.data, finseek.samples.files, polars
started = time.process_time()
try:
    main()
except SystemExit as ended:
    assert not ended.code
print(time.process_time() - started)
"""

PEER = """
import json, sys, time, zipfile
import xml.etree.ElementTree as ET
from pathlib import Path
import pandas as pd
source, out = Path(sys.argv[1]), Path(sys.argv[2])
out.mkdir()
started = time.process_time()
if source.is_dir():
    contents = (path.read_bytes() for path in sorted(source.glob("*.xml")))
else:
    archive = zipfile.ZipFile(source)
    contents = (archive.read(name) for name in sorted(archive.namelist()) if name.endswith(".xml"))
with open(out / "all.jsonl", "w") as lines:
    for content in contents:
        root = ET.fromstring(content)
        for thesis in root.iter("thesis"):
            record = {child.tag.replace("-", "_"): (child.text or "").strip() for child in thesis}
            record["ticker"] = root.get("ticker")
            if record["action"] != "error":
                lines.write(json.dumps(record) + "\\n")
frame = pd.read_json(out / "all.jsonl", lines=True, dtype=False)
frame["as_of_date"] = pd.to_datetime(frame["as_of_date"])
end, start = pd.Timestamp("2024-12-31"), pd.Timestamp("2025-01-01")
since = end - pd.Timedelta(days=30)
parts = {
    "train": frame[frame["as_of_date"] <= since],
    "validation": frame[(frame["as_of_date"] > since) & (frame["as_of_date"] <= end)],
    "test": frame[frame["as_of_date"] >= start],
}
for name, part in parts.items():
    part.to_parquet(out / f"{name}.parquet")
    part = pd.read_parquet(out / f"{name}.parquet")
    with open(out / f"{name}.jsonl", "w") as lines:
        for _, row in part.iterrows():
            answer = f"<action>{row['action'].upper()}</action>\\n<reasoning>{row['reasoning']}</reasoning>"
            sample = {
                "input": f"Give one action.\\nticker={row['ticker']}",
                "output": f"{answer}\\n<support>{row['support']}</support>",
                "metadata": {"ticker": row["ticker"], "as_of_date": str(row["as_of_date"].date())},
            }
            lines.write(json.dumps(sample) + "\\n")
print(time.process_time() - started)
"""

SPLITS = ("train", "training", "validation", "test")
WORDS = (
    "the stock closed above its average on strong volume while momentum faded into resistance and the yield curve "
    "stayed inverted as investors weighed margins guidance and breadth against a softening labour market"
).split()


def make_theses(folder: Path) -> Path:
    """20 tickers with 376 theses each, about 2,400 characters of text, from a seed."""
    random = Random(1)
    folder.mkdir()
    days = [date(2023, 10, 24) + timedelta(days=n) for n in range(1000)]
    days = [day for day in days if day.weekday() < 5][:376]
    for n in range(20):
        theses = []
        for day in days:
            reasoning, support = (" ".join(random.choices(WORDS, k=k)) for k in (280, 100))
            action = random.choice(["sell", "buy", "hold", "strong_buy", "strong_sell"])
            theses.append(
                f"  <thesis>\n    <as-of-date>{day}</as-of-date>\n    <reasoning>{reasoning}</reasoning>\n"
                f"    <action>{action}</action>\n    <support>{support}</support>\n  </thesis>\n"
            )
        head = f'<?xml version="1.0" encoding="UTF-8"?>\n<stock-theses ticker="S{n:02d}">\n'
        text = f"{head}{''.join(theses)}</stock-theses>\n"
        (folder / f"S{n:02d}_theses.xml").write_text(text)
    return folder


def copied(source: Path, folder: Path, copies: int) -> Path:
    """Every XML file of the source ``copies`` times, each under a ticker of its own."""
    folder.mkdir()
    if source.is_dir():
        files = {path.name: path.read_text() for path in sorted(source.rglob("*.xml"))}
    else:
        with zipfile.ZipFile(source) as archive:
            files = {Path(n).name: archive.read(n).decode() for n in archive.namelist() if n.endswith(".xml")}
    for name, text in files.items():
        for copy in range(copies):
            renamed = re.sub(r'ticker="([^"]+)"', rf'ticker="\g<1>{copy:02d}"', text, count=1)
            (folder / f"{copy:02d}_{name}").write_text(renamed)
    return folder


def measured(code: str, source: Path, out: Path) -> dict[str, float]:
    """Figures of one fresh process."""
    with subprocess.Popen(
        [sys.executable, "-c", code, str(source), str(out)], stdout=subprocess.PIPE, text=True
    ) as run:
        printed = run.stdout.read().split() if run.stdout else []
        _, status, usage = os.wait4(run.pid, 0)
        run.returncode = os.waitstatus_to_exitcode(status)
    if run.returncode:
        raise SystemExit(f"the run of {source} failed")
    return {
        "cpu_seconds": usage.ru_utime + usage.ru_stime,
        "work_seconds": float(printed[-1]),
        "peak_mib": usage.ru_maxrss / 1024,
        "records": sum(file.read_bytes().count(b"\n") for file in out.rglob("*.jsonl") if file.stem in SPLITS),
    }


def main() -> None:
    """Run both in turns, print and keep medians, the ratio and its spread."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--source", type=Path)
    parser.add_argument("--copies", type=int, default=1)
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    os.environ |= {"POLARS_MAX_THREADS": "1", "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
        train_tokenizer(WORDS, 300, folder / "tokenizer")
        source = (options.source or make_theses(folder / "made")).resolve()
        if options.copies > 1:
            source = copied(source, folder / "copies", options.copies)
        runs: dict[str, list[dict[str, float]]] = {"finseek": [], "baseline": []}
        measured(OURS, source, folder / "compiled")
        for n in range(options.repeat):
            runs["finseek"].append(measured(OURS, source, folder / f"ours{n}"))
            runs["baseline"].append(measured(PEER, source, folder / f"peer{n}"))
    if len({run["records"] for both in runs.values() for run in both}) != 1:
        raise SystemExit(f"the records that came out differ: {runs}")
    ratios = [p["cpu_seconds"] / o["cpu_seconds"] for o, p in zip(runs["finseek"], runs["baseline"], strict=True)]
    figures = {
        "copies": options.copies,
        "records": int(runs["finseek"][0]["records"]),
        **{
            f"{who}_{key}": round(median(run[key] for run in both), 2)
            for who, both in runs.items()
            for key in ("cpu_seconds", "work_seconds", "peak_mib")
        },
        "cpu_ratio": round(median(ratios), 2),
        "cpu_ratio_range": [round(min(ratios), 2), round(max(ratios), 2)],
        "python": platform.python_version(),
        "processor": platform.processor() or platform.platform(),
        "cpus": os.cpu_count(),
    }
    print(json.dumps(figures, indent=2))
    if options.json:
        options.json.write_text(json.dumps(figures, indent=2) + "\n")


if __name__ == "__main__":
    main()
