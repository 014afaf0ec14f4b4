"""Each architecture, in each of its variants, computes what transformers computes."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModelForCausalLM

import feldspar
from feldspar.core.errors import UserError
from feldspar.huggingface.architectures import ARCHITECTURES
from feldspar.huggingface.import_folder import import_model, read_description
from feldspar.model.rows import model_shapes
from tests.huggingface.architectures.__main__ import HEADER, gguf_cell, table_order
from tests.huggingface.architectures.comparison import (
    Case,
    Compared,
    compare_decoding,
    compare_logits,
    compare_training,
    export_again,
    make_case,
    read_configuration,
    same_tensors,
    save_reference,
)
from tests.huggingface.architectures.family import Family, all_families
from tests.huggingface.architectures.formulas import FORMULAS, make_formula_case
from tests.rounding import assert_within_rounding

FAMILIES = all_families()
VARIANTS = [(name, variant) for name, family in FAMILIES.items() for variant in family.variants]
REFUSED = [(name, case) for name, family in FAMILIES.items() for case in family.refused]
each_family = pytest.mark.parametrize("family", FAMILIES.values(), ids=FAMILIES)


@pytest.fixture(scope="module", params=VARIANTS, ids=": ".join)
def case(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Case:
    name, variant = request.param
    family = FAMILIES[name]
    return make_case(family, family.variants[variant], tmp_path_factory.mktemp(name))


def check(compared: Compared) -> None:
    for tensor in compared.found:
        assert torch.isfinite(tensor).all()
    assert_within_rounding(compared.found, compared.expected, compared.terms, scale=compared.scale)


def test_every_adapter_has_a_family() -> None:
    assert {*FAMILIES, *FORMULAS} == set(ARCHITECTURES)


def test_decoding_with_a_cache(case: Case) -> None:
    # The first test of a model: older versions keep the frequencies of a longer sequence.
    check(compare_decoding(case))


def test_logits(case: Case) -> None:
    check(compare_logits(case))


def test_loss_and_gradients(case: Case) -> None:
    for compared in compare_training(case):
        check(compared)


def test_the_export_holds_the_same_bits(case: Case, tmp_path: Path) -> None:
    export_again(case, tmp_path / "out")
    assert same_tensors(case.folder, tmp_path / "out")
    exported = AutoModelForCausalLM.from_pretrained(
        tmp_path / "out", attn_implementation=case.family.attention
    ).eval()
    with torch.no_grad():
        logits = exported(case.tokens).logits
        check(Compared([logits], [case.reference(case.tokens).logits], case.terms))
    assert read_description(tmp_path / "out") == case.imported.description


def test_the_plan_counts_all_parameters(case: Case) -> None:
    counted = sum(parameter.numel() for parameter in case.reference.parameters())
    assert model_shapes(case.imported.settings).parameters == counted


def test_older_configurations_mean_the_same(case: Case, tmp_path: Path) -> None:
    older = FAMILIES[case.imported.origin.architecture].older
    assert described(older(read_configuration(case.folder)), tmp_path) == case.imported.description


def test_missing_keys_have_the_defaults_of_the_class(case: Case, tmp_path: Path) -> None:
    written = read_configuration(case.folder)
    if written["model_type"] == "feldspar":
        pytest.skip("every folder of our own class names all keys")
    defaults = AutoConfig.for_model(written["model_type"]).to_dict()
    kept = {
        key: value
        for key, value in written.items()
        if key == "model_type" or key not in defaults or value != defaults[key]
    }
    assert len(kept) < len(written)
    assert described(kept, tmp_path) == case.imported.description


def described(configuration: dict[str, Any], folder: Path) -> Any:
    (folder / "config.json").write_text(json.dumps(configuration))
    return read_description(folder)


@each_family
def test_a_folder_without_a_tokenizer_opens(family: Family, tmp_path: Path) -> None:
    case = make_case(family, next(iter(family.variants.values())), tmp_path)
    logits = feldspar.open_model(tmp_path, device="cpu").logits(case.tokens)
    with torch.no_grad():
        expected = case.decoder.logits(case.decoder(case.tokens))
    assert torch.equal(logits, expected)


@each_family
def test_shapes_that_lie_are_refused(family: Family, tmp_path: Path) -> None:
    save_reference(family, next(iter(family.variants.values())), tmp_path)
    path = tmp_path / "model.safetensors"
    tensors = load_file(path)
    for name, tensor in tensors.items():
        save_file(tensors | {name: tensor[1:].clone()}, path)
        with pytest.raises(UserError, match="has another shape"):
            import_model(tmp_path)


@pytest.mark.parametrize(("name", "reason"), REFUSED, ids=map(": ".join, REFUSED))
def test_values_that_we_would_compute_differently_are_refused(
    name: str, reason: str, tmp_path: Path
) -> None:
    family = FAMILIES[name]
    save_reference(family, next(iter(family.variants.values())), tmp_path)
    changes, message = family.refused[reason]
    with pytest.raises(UserError, match=message):
        described(read_configuration(tmp_path) | changes, tmp_path)


@pytest.mark.parametrize("name", [case for cases in FORMULAS.values() for case in cases])
def test_classes_that_transformers_lacks_train_as_their_formulas_say(
    name: str, tmp_path: Path
) -> None:
    for compared in compare_training(make_formula_case(name, tmp_path / "theirs")):
        check(compared)


def test_the_printed_table_has_a_row_for_every_architecture() -> None:
    page = Path(__file__).parents[3] / "docs" / "methods" / "open-models.md"
    lines = page.read_text(encoding="utf-8").splitlines()
    begin = lines.index("| " + " | ".join(HEADER) + " |")
    rows = re.findall(r"^\| `([^`]+)` .* (\w+) \|$", "\n".join(lines[begin:]), flags=re.M)
    assert rows == [(name, gguf_cell(name)) for name in table_order()]
