"""The exported code where feldspar is not installed, and the installed class in its place."""

import subprocess
import sys
from importlib.resources import files

import torch
from transformers import AutoConfig, AutoModelForCausalLM

from feldspar.huggingface.own import CODE
from feldspar.huggingface.register import register_with_transformers
from feldspar.huggingface.remote.modeling_feldspar import FeldsparForCausalLM
from tests.huggingface.conftest import BTLM
from tests.rounding import assert_within_rounding, terms_of

ALONE = """
import sys
sys.modules["feldspar"] = None  # an import of it fails, as where it is not installed
import torch
from transformers import AutoModelForCausalLM
tokens, *folders = sys.argv[1:]
for folder in folders:
    model = AutoModelForCausalLM.from_pretrained(folder, trust_remote_code=True)
    assert type(model).__module__.startswith("transformers_modules."), type(model).__module__
    with torch.no_grad():
        torch.save(model(torch.load(tokens)).logits, f"{folder}/logits.pt")
"""


def test_the_folder_holds_the_installed_source(make_decoder, export) -> None:
    folder = export(make_decoder(BTLM))
    for name in CODE:
        source = files("feldspar.huggingface.remote").joinpath(f"{name}.py")
        assert (folder / f"{name}.py").read_bytes() == source.read_bytes()


def test_the_installed_class_needs_no_remote_code(make_decoder, export) -> None:
    folder = export(make_decoder(BTLM))
    for name in CODE:  # no code of the folder can run
        (folder / f"{name}.py").write_text("raise SystemExit('the folder runs')")
    register_with_transformers()
    register_with_transformers()
    assert type(AutoModelForCausalLM.from_pretrained(folder)) is FeldsparForCausalLM
    config = AutoConfig.from_pretrained(folder)
    assert type(AutoModelForCausalLM.from_config(config)) is FeldsparForCausalLM


def test_the_code_runs_where_feldspar_is_not_installed(
    make_decoder, export, tokens, tmp_path
) -> None:
    """An exported folder, and one that the installed class saved again."""
    decoder = make_decoder(BTLM)
    folders = [export(decoder), tmp_path / "again"]
    AutoModelForCausalLM.from_pretrained(folders[0]).save_pretrained(folders[1])
    torch.save(tokens, tmp_path / "tokens.pt")
    command = [sys.executable, "-c", ALONE, tmp_path / "tokens.pt", *folders]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    with torch.no_grad():
        expected = decoder.logits(decoder(tokens))
    for folder in folders:
        found = torch.load(folder / "logits.pt")
        assert_within_rounding(found, expected, terms_of(decoder, tokens))
