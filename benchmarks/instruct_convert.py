"""CPU time to convert 500,000 instruction rows with conversations of three turns.

    python benchmarks/instruct_convert.py [--rows 500000] [--json FILE]

The peer is a plain loop of the same output with the standard library: json, str.format, random access by list.
Both run in fresh processes, one after the other; each prints CPU seconds from start to exit.
"""

from __future__ import annotations

import argparse
import json
import platform
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

OURS = """
import sys
from pathlib import Path
from finseek.samples.instruct_convert import InstructOptions, convert_instructions
options = InstructOptions(conversation_extension=3, validation_fraction=0.05)
convert_instructions(sys.argv[1], Path(sys.argv[2]), options)
"""

PEER = """
import json, random, sys
from pathlib import Path
import numpy as np
turns = {"training": [], "validation": []}
chance = random.Random(1)
with open(sys.argv[1]) as lines:
    for line in lines:
        row = json.loads(line)
        system = row["system"] + "\\n" if row["system"].strip() else ""
        part = "validation" if chance.random() < 0.05 else "training"
        turns[part].append([{"role": "user", "content": system + row["user"]},
                            {"role": "assistant", "content": row["assistant"]}])
Path(sys.argv[2]).mkdir()
for name, part in turns.items():
    order = [range(len(part))] + [np.random.default_rng(3407 + j).permutation(len(part)) for j in (1, 2)]
    with open(Path(sys.argv[2]) / f"{name}.jsonl", "w") as out:
        for places in zip(*order):
            out.write(json.dumps({"messages": [turn for i in places for turn in part[i]]}, ensure_ascii=False) + "\\n")
"""


def cpu_seconds(code: str, *arguments: str) -> tuple[float, float]:
    """CPU seconds of a fresh process and its peak memory in MiB (the largest child so far)."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, "-c", code, *arguments], check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    spent = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return spent, after.ru_maxrss / 1024


def main() -> None:
    """Make the rows, run both, print and keep the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=500_000)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with (folder / "rows.jsonl").open("w") as out:
            for i in range(options.rows):
                row = {
                    "system": "\n" if i % 4 else "You are a careful analyst.",
                    "user": f"Question {i}: what does a margin of {i % 97} % mean for the price of a bond? " * 2,
                    "assistant": f"Answer {i}: it means that the issuer keeps {i % 97} cents of each dollar. " * 4,
                }
                out.write(json.dumps(row) + "\n")
        ours, ours_peak = cpu_seconds(OURS, str(folder / "rows.jsonl"), str(folder / "ours"))
        peer, _ = cpu_seconds(PEER, str(folder / "rows.jsonl"), str(folder / "peer"))
    figures = {
        "rows": options.rows,
        "finseek_cpu_seconds": round(ours, 2),
        "finseek_peak_mib": round(ours_peak),
        "baseline_cpu_seconds": round(peer, 2),
        "ratio": round(peer / ours, 2),
        "python": platform.python_version(),
        "machine": platform.machine(),
        "processor": platform.processor() or platform.platform(),
    }
    print(json.dumps(figures, indent=2))
    if options.json:
        options.json.write_text(json.dumps(figures, indent=2) + "\n")


if __name__ == "__main__":
    main()
