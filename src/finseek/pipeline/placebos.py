"""The whole run again on changed records: what is still found there tells what the model learned from."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from finseek.audit.placebo import PLACEBOS, compare_placebo
from finseek.core.artifacts import write_json
from finseek.core.errors import ConfigError
from finseek.core.progress import Progress, silent
from finseek.pipeline.config import Config
from finseek.pipeline.config_file import LoadedConfig, validate_config
from finseek.pipeline.overrides import Override, apply_overrides
from finseek.pipeline.paths import RunPaths
from finseek.pipeline.run import run
from finseek.pipeline.trials import config_hash

Say = Callable[[str], None]


def run_placebos(
    loaded: LoadedConfig,
    names: Sequence[str] = tuple(PLACEBOS),
    progress: Progress = silent,
    say: Say = lambda line: None,
) -> list[dict[str, Any]]:
    """Evaluate the run of a config, then train and evaluate again on each placebo; write placebos.json.

    The placebo runs lie in ``placebos/`` of the run folder, with the same seed; what is unchanged is not run again.
    They are no trials: nothing is chosen by them.

    Args:
        loaded: config of the true run.
        names: of ``PLACEBOS``.
        progress: told where long work stands.
        say: told one line for each stage.

    Returns:
        for each placebo what `compare_placebo` finds.

    Raises:
        ConfigError: an unknown placebo.
        FinseekError: whatever a stage refuses.
    """
    from finseek.evaluate import read_predictions
    from finseek.theses import load_split, load_theses, write_records

    if loaded.config.split and loaded.config.split.realised:
        raise ConfigError(
            "a placebo takes the truth out of the theses, and split.realised takes it from the prices: audit the same"
            " config with split.realised null"
        )
    unknown = [name for name in names if name not in PLACEBOS]
    if unknown or not names:
        raise ConfigError(f"placebo {(unknown or [''])[0]!r} is none of {', '.join(PLACEBOS)}")
    paths = run(loaded, last="evaluate", progress=progress, say=say).paths
    config = loaded.config
    real = read_predictions(paths.evaluate / "eval_results.csv")
    keys = {(row.ticker, row.as_of_date) for row in real}
    theses = load_theses(paths.theses / "all.jsonl")
    found = []
    for name in names:
        say(f"placebo {name}:")
        write_records(paths.placebos / f"{name}.jsonl", PLACEBOS[name].change(theses, config.run.seed))
        made = run(
            replace(loaded, config=placebo_config(config, paths, name)), last="evaluate", progress=progress, say=say
        )
        rows = read_predictions(made.paths.evaluate / "eval_results.csv")
        same = [row for row in rows if (row.ticker, row.as_of_date) in keys]
        training = load_split(made.paths.split / "train.parquet")
        found.append(compare_placebo(name, real, same, training, config.evaluate, config.run.seed))
    write_json(paths.placebos / "placebos.json", {"config": config_hash(config), "placebos": found})
    return found


def placebo_config(config: Config, paths: RunPaths, name: str) -> Config:
    """The config of a placebo run: its own records and folder, no copies elsewhere, no baseline but the majority."""
    changes = {
        "run.name": name,
        "run.output_dir": str(paths.placebos),
        "theses.source": str(paths.placebos / f"{name}.jsonl"),
        "theses.jsonl_output": None,
        "split.near_duplicate_threshold": None,
        "prompt.nemo_dataset_dir": None,
        "prompt.hf_dataset_dir": None,
        "evaluate.baselines": ["majority"],
        "evaluate.lock_test": False,
        "report.planted": None,
        **{f"prompt.{option}": value for option, value in PLACEBOS[name].prompt.items()},
    }
    overrides = (Override(key, value, "finseek audit placebo") for key, value in changes.items())
    return validate_config(apply_overrides(config.to_json(), overrides))


def placebo_finding(content: dict[str, Any], config: Config) -> dict[str, Any] | None:
    """What the report says of placebos.json; None where another config made it."""
    if content["config"] != config_hash(config):
        return None
    leaks = [found["placebo"] for found in content["placebos"] if found["leak"]]
    told = [
        f"{found['placebo'].replace('_', ' ')}: accuracy {found['accuracy_placebo']:.3f} instead of "
        f"{found['accuracy_real']:.3f}"
        for found in content["placebos"]
    ]
    return {"status": "failed" if leaks else "passed", "summary": f"{'; '.join(told)}."}
