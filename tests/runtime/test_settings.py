"""The sections `runtime` and `checkpoints` as a recipe writes them."""

import subprocess
import sys

import pytest
from pydantic import ValidationError

from feldspar.recipe.sections.runtime import (
    CheckpointSettings,
    FsdpDistribution,
    RuntimeSettings,
    SkipNonFinite,
)


def test_defaults() -> None:
    assert str(CheckpointSettings().every) == "10% of run"
    assert CheckpointSettings().keep.last == 2
    assert RuntimeSettings().distribution.type == "auto"
    assert RuntimeSettings().on_non_finite.type == "stop"


def test_written_forms() -> None:
    settings = RuntimeSettings.model_validate_json(
        '{"distribution": {"type": "fsdp", "shards": 2}, "compile": false, "trackers": [],'
        '"on_non_finite": {"type": "skip", "up_to": 3}, "micro_batch_sequences": 4}'
    )
    assert settings.distribution == FsdpDistribution(shards=2)
    assert settings.on_non_finite == SkipNonFinite(up_to=3)
    assert settings.trackers == () and settings.compile is False
    again = RuntimeSettings.model_validate_json('{"distribution": "ddp"}')
    assert again.distribution.type == "ddp"


@pytest.mark.parametrize(
    "text",
    [
        '{"device": "tpu"}',
        '{"threads": 0}',
        '{"on_non_finite": {"type": "skip"}}',
        '{"distribution": {"type": "ddp", "shards": 2}}',
        '{"micro_batch_sequences": "many"}',
    ],
)
def test_refused(text: str) -> None:
    with pytest.raises(ValidationError):
        RuntimeSettings.model_validate_json(text)


def test_settings_load_no_torch() -> None:
    code = (
        "import sys, feldspar.recipe.sections.runtime, feldspar.runtime.run_folder; "
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
