"""Where NeMo is not installed the same config trains on Lightning, and one line says so."""

from __future__ import annotations

import sys

import pytest

from finseek.core.errors import ConfigError, MissingPart, Note
from finseek.train import engine_or_stand_in, load_engine


def test_lightning_stands_in_for_automodel(make_job, monkeypatch):
    monkeypatch.setitem(sys.modules, "nemo_automodel", None)  # as an import finds it where it is not installed
    with pytest.raises(MissingPart, match=r"pip install 'finseek\[nemo\]'"):
        load_engine("automodel")
    with pytest.warns(
        Note, match=r"nemo_automodel, which is not installed: .*; engine lightning trains instead"
    ) as told:
        engine = engine_or_stand_in("automodel")
    assert len(told) == 1
    assert "\n" not in str(told[0].message)
    result = engine.run(make_job(engine="automodel", max_steps=2))
    assert result.steps == 2


def test_no_engine_stands_in_for_one_that_does_not_exist():
    with pytest.raises(ConfigError, match="'nemo' is none of lightning"):
        engine_or_stand_in("nemo")
