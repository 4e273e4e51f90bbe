"""The manifest: everything a reviewer needs to check a run, and the check."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import orjson

import finseek
from finseek.core.artifacts import sha256_file, sha256_json, write_json
from finseek.core.errors import ArtifactError, InputError

FORMAT = 1
NO_ARTIFACTS = frozenset({"manifest.json", "state.json", ".lock", "logs", "stale", "sweep", "cache", "placebos"})
PACKAGES = (
    "finseek numpy polars lxml msgspec orjson pydantic tokenizers torch transformers safetensors lightning peft trl "
    "nemo-automodel scikit-learn arch numba"
).split()


@dataclass(frozen=True)
class Finding:
    """One thing that does not agree with the manifest; a note where it merely could not be checked."""

    path: str
    problem: str
    is_note: bool = False


def describe_code() -> dict[str, Any]:
    """Version of finseek, and the git commit with its dirtiness where it runs from a checkout."""
    here = Path(finseek.__file__).resolve().parent

    def git(*arguments: str) -> str | None:
        try:
            done = subprocess.run(["git", "-C", str(here), *arguments], capture_output=True, text=True, timeout=10)
        except (OSError, subprocess.TimeoutExpired):
            return None
        return done.stdout.strip() if done.returncode == 0 else None

    tracked = git("ls-files", "--error-unmatch", "__init__.py") is not None
    return {
        "version": finseek.__version__,
        "git_commit": git("rev-parse", "HEAD") if tracked else None,
        "git_dirty": bool(git("status", "--porcelain", "--", str(here))) if tracked else None,
    }


def describe_environment() -> dict[str, Any]:
    """Python, machine and the versions of the packages that decide numbers."""
    versions: dict[str, str | None] = {}
    for package in PACKAGES:
        try:
            versions[package] = _version(package)
        except metadata.PackageNotFoundError:
            versions[package] = None
    return {
        "python": sys.version.split()[0],
        "platform": platform.platform(),
        "machine": platform.machine(),
        "cpus": os.cpu_count(),
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "gpus": _gpus(),
        "packages": versions,
    }


def _version(package: str) -> str | None:
    """As :func:`importlib.metadata.version`, which reads the whole page as an e-mail, prose and all."""
    about = metadata.distribution(package)
    page = about.read_text("METADATA") or about.read_text("PKG-INFO") or ""
    return next((line.removeprefix("Version: ") for line in page.splitlines() if line.startswith("Version: ")), None)


def _gpus() -> list[str]:
    """Name, memory and driver of each NVIDIA GPU, as its driver gives them."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return []
    query = [program, "--query-gpu=name,memory.total,driver_version", "--format=csv,noheader"]
    try:
        done = subprocess.run(query, capture_output=True, text=True, timeout=20)
    except (OSError, subprocess.TimeoutExpired):
        return []
    return done.stdout.splitlines() if done.returncode == 0 else []


def write_manifest(path: Path, body: Mapping[str, Any]) -> None:
    """Write the manifest with a hash of its own content."""
    content = {"format": FORMAT, **body}
    write_json(path, {**content, "sha256": sha256_json(content)})


def read_manifest(path: Path) -> dict[str, Any]:
    """Read a manifest and check its own hash.

    Raises:
        InputError: if there is none.
        ArtifactError: if it is no manifest or was altered.
    """
    if not path.is_file():
        raise InputError(f"{path} does not exist: the run has not ended, or this is no run folder")
    try:
        content: dict[str, Any] = orjson.loads(path.read_bytes())
        claimed = content.pop("sha256")
    except (orjson.JSONDecodeError, KeyError, AttributeError, TypeError, OSError) as error:
        raise ArtifactError(f"{path} is damaged ({error}): the run must be made again") from None
    if content.get("format") != FORMAT or not _is_whole(content):
        raise ArtifactError(f"{path} is no manifest of format {FORMAT}: the run must be made again")
    if sha256_json(content) != claimed:
        raise ArtifactError(f"{path} was altered: its content does not have the hash that it states")
    return content


def _is_whole(content: Mapping[str, Any]) -> bool:
    """Whether artifacts and inputs have their shape, and no artifact lies outside the run folder."""
    artifacts, inputs = content.get("artifacts"), content.get("inputs")
    if not isinstance(artifacts, dict) or not isinstance(inputs, dict):
        return False
    inside = all(not Path(name).is_absolute() and ".." not in Path(name).parts for name in artifacts)
    records = all(
        isinstance(r, dict) and {"sha256", "bytes"} <= set(r) for r in (*artifacts.values(), *inputs.values())
    )
    return inside and records and all("path" in record for record in inputs.values())


def verify_manifest(run: Path) -> Iterator[Finding]:
    """Recompute every hash of a run folder and yield what does not agree.

    Raises:
        InputError, ArtifactError: if the manifest itself cannot be trusted.
    """
    manifest = read_manifest(run / "manifest.json")
    for name, record in sorted(manifest["artifacts"].items()):
        file = run / name
        if not file.is_file():
            yield Finding(name, "is missing")
        elif file.stat().st_size != record["bytes"]:
            yield Finding(name, f"has {file.stat().st_size} bytes, the manifest says {record['bytes']}")
        elif sha256_file(file) != record["sha256"]:
            yield Finding(name, f"has another content than SHA-256 {record['sha256']}")
    for file in sorted(path for path in run.rglob("*") if path.is_file()):
        name = file.relative_to(run).as_posix()
        if name not in manifest["artifacts"] and name.split("/")[0] not in NO_ARTIFACTS:
            yield Finding(name, "is not in the manifest: no claim of the run covers it")
    for name, record in sorted(manifest["inputs"].items()):
        source = Path(record["path"])
        if not source.is_file():
            yield Finding(f"input {name}", f"is no longer at {source}: not checked", is_note=True)
        elif sha256_file(source) != record["sha256"]:
            yield Finding(f"input {name}", f"{source} is no longer the file that the run read")
