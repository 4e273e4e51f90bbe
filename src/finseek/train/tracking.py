"""Training curves to TensorBoard, Weights & Biases and MLflow; train_log.jsonl is written whatever happens here."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from finseek.core.errors import MissingPart
from finseek.train.options import TrackingOptions

Sink = Callable[[Mapping[str, float], int], None]


@contextmanager
def trackers(options: TrackingOptions, folder: Path, run_name: str, config: Mapping[str, Any]) -> Iterator[Sink]:
    """Open the trackers of ``options.backends``; yields what takes the numbers of a log line and its step.

    Args:
        options: which trackers.
        folder: where offline records lie.
        run_name: name of the run there.
        config: plain nested values attached to the run.

    Raises:
        MissingPart: if a tracker's library is not installed.
    """
    with ExitStack() as stack:
        sinks = [stack.enter_context(BACKENDS[name](options, folder, run_name, config)) for name in options.backends]

        def send(line: Mapping[str, Any], step: int) -> None:
            numbers = {key: float(value) for key, value in line.items() if isinstance(value, int | float)}
            for sink in sinks:
                sink(numbers, step)

        yield send


@contextmanager
def _tensorboard(options: TrackingOptions, folder: Path, run_name: str, config: Mapping[str, Any]) -> Iterator[Sink]:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ModuleNotFoundError as missing:
        raise MissingPart("tensorboard", "tracking", "tracking.tensorboard") from missing
    writer = SummaryWriter(str(folder / "tensorboard" / run_name))
    writer.add_text("config", f"    {dict(config)}")

    def send(numbers: Mapping[str, float], step: int) -> None:
        for key, value in numbers.items():
            writer.add_scalar(key, value, step)

    try:
        yield send
    finally:
        writer.close()


@contextmanager
def _wandb(options: TrackingOptions, folder: Path, run_name: str, config: Mapping[str, Any]) -> Iterator[Sink]:
    try:
        import wandb
    except ModuleNotFoundError as missing:
        raise MissingPart("wandb", "tracking", "tracking.wandb") from missing
    folder.mkdir(parents=True, exist_ok=True)
    run = wandb.init(
        project=options.project,
        name=run_name,
        dir=str(folder),
        config=dict(config),
        mode="offline" if options.offline else "online",
        settings=wandb.Settings(console="off", silent=True, x_disable_stats=True, disable_git=True),
    )
    failed = True
    try:
        yield lambda numbers, step: run.log(dict(numbers), step=step)
        failed = False
    finally:
        run.finish(exit_code=int(failed))


@contextmanager
def _mlflow(options: TrackingOptions, folder: Path, run_name: str, config: Mapping[str, Any]) -> Iterator[Sink]:
    try:
        from mlflow import MlflowClient
    except ModuleNotFoundError as missing:
        raise MissingPart("mlflow", "tracking", "tracking.mlflow") from missing
    with _mlflow_file_store(options.offline):
        client = MlflowClient(tracking_uri=(folder / "mlruns").resolve().as_uri() if options.offline else None)
        known = client.get_experiment_by_name(options.project)
        experiment = known.experiment_id if known else client.create_experiment(options.project)
        run_id = client.create_run(experiment, run_name=run_name).info.run_id
        client.log_dict(run_id, dict(config), "config.json")

        def send(numbers: Mapping[str, float], step: int) -> None:
            for key, value in numbers.items():
                client.log_metric(run_id, key, value, step=step)

        status = "FAILED"
        try:
            yield send
            status = "FINISHED"
        finally:
            client.set_terminated(run_id, status)


@contextmanager
def _mlflow_file_store(offline: bool) -> Iterator[None]:
    """MLflow 3 wants this variable before it writes to a plain folder, the only store without a server."""
    name, before = "MLFLOW_ALLOW_FILE_STORE", os.environ.get("MLFLOW_ALLOW_FILE_STORE")
    if offline:
        os.environ[name] = "true"
    try:
        yield
    finally:
        if before is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = before


BACKENDS = {"tensorboard": _tensorboard, "wandb": _wandb, "mlflow": _mlflow}
