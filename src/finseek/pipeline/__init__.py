"""One config, all stages: caching, manifest, verification."""

from finseek.pipeline.config import Config
from finseek.pipeline.config_file import LoadedConfig, load_config, smoke_test
from finseek.pipeline.run import RunResult, run

__all__ = ["Config", "LoadedConfig", "RunResult", "load_config", "run", "smoke_test"]
