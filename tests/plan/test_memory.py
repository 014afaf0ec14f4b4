"""Memory: exact where it is weights, gradients and moments; against real models and optimizers."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import strategies as st
from torch.profiler import ProfilerActivity, profile

from feldspar.core.accelerators import ACCELERATORS, accelerator_named, accelerator_of
from feldspar.core.errors import UserError
from feldspar.core.rows import chosen_rows
from feldspar.model.cross_entropy import working_bytes
from feldspar.model.decoder import Decoder
from feldspar.model.low_rank import activate, add_low_rank
from feldspar.parametrization.application import apply
from feldspar.plan.activations import MicroBatch, activation_bytes
from feldspar.plan.batches import check_divides, cpu_micro_batch, largest_micro_batch
from feldspar.plan.memory import Machine, Memory, product_copy_bytes
from feldspar.plan.summary import Plan, plan_recipe
from feldspar.plan.trained import trained_rows
from feldspar.recipe.load import load_recipe
from feldspar.recipe.sections.model import ModelSettings
from feldspar.train.language_model import set_trainable
from feldspar.train.optimizer import Optimizer
from tests.plan.conftest import PlanText
from tests.processes import run_together

H100 = accelerator_named("h100")
LARGER = (
    "{n_layers: 3, d_model: 128, n_heads: 4, d_ff: 512, vocab_size: 900, max_sequence_length: 64}"
)
PHASES = "phases: [{name: a, length: 4 steps, batch: {sequences: 24}}]\n"


def paper(*overrides: str) -> Plan:
    return plan_recipe(load_recipe("cerebras-gpt/paper", list(overrides)).recipe)


@st.composite
def legal_models(draw: st.DrawFn) -> ModelSettings:
    """Random decoders of every kind."""
    groups, per_group = draw(st.integers(1, 3)), draw(st.integers(1, 3))
    head_dim = 2 * draw(st.integers(1, 6))
    heads = groups * per_group
    own_width = draw(st.booleans())
    return ModelSettings.model_validate(
        {
            "n_layers": draw(st.integers(1, 3)),
            "d_model": draw(st.integers(1, 40)) if own_width else heads * head_dim,
            "n_heads": heads,
            "n_kv_heads": groups,
            "head_dim": head_dim if own_width else None,
            "d_ff": draw(st.integers(1, 50)),
            "vocab_size": draw(st.integers(2, 60)),
            "max_sequence_length": draw(st.integers(1, 40)),
            "positions": draw(st.sampled_from(["learned", "rotary", "alibi", "none"])),
            "feed_forward": draw(st.sampled_from(["gelu", "swiglu"])),
            "norm": draw(st.sampled_from(["layer", "rms"])),
            "bias": draw(st.booleans()),
            "tied_embeddings": draw(st.booleans()),
        }
    )


@pytest.mark.parametrize(
    "trainable", ["all", "[embedding, output]", "['blocks.*.attention.*', norm]"]
)
def test_weights_gradients_and_moments_are_those_of_the_optimizer(
    plan_text: PlanText, trainable: str
) -> None:
    planned = plan_text(PHASES.replace("batch", f"trainable: {trainable}, batch"))
    memory = planned.memory()
    decoder = Decoder(planned.recipe.model)
    set_trainable(decoder, trained_rows(planned.recipe, planned.shapes.rows, 0))
    optimizer = Optimizer(apply(decoder, planned.table, 0), planned.recipe.optimizer)
    tokens = torch.zeros(1, 8, dtype=torch.int64)
    decoder.loss(tokens, tokens)[0].backward()
    parameters = list(decoder.parameters())
    assert memory.weights_bytes == sum(item.nbytes for item in parameters)
    gradients = [item.grad for item in parameters if item.grad is not None]
    assert memory.gradients_bytes == sum(item.nbytes for item in gradients)
    assert memory.optimizer_bytes == sum(item.nbytes for item in optimizer.state().values())


def test_lora_has_gradients_and_moments_and_its_targets_have_none(plan_text: PlanText) -> None:
    lora = "lora: {rank: 2, alpha: 4, targets: [value, feed_forward_output]}, trainable: [norm]"
    planned = plan_text(PHASES.replace("batch", f"{lora}, batch"))
    memory, trained = planned.memory(), planned.trained[0]
    decoder = Decoder(planned.recipe.model)
    assert planned.recipe.lora is not None
    add_low_rank(decoder, planned.recipe.lora)
    activate(decoder, True)
    set_trainable(decoder, trained)
    optimizer = Optimizer(apply(decoder, planned.table, 0), planned.recipe.optimizer)
    tokens = torch.zeros(1, 8, dtype=torch.int64)
    decoder.loss(tokens, tokens)[0].backward()
    parameters = list(decoder.parameters())
    assert memory.weights_bytes == sum(item.nbytes for item in parameters)
    gradients = [item.grad for item in parameters if item.grad is not None]
    assert memory.gradients_bytes == sum(item.nbytes for item in gradients)
    assert memory.optimizer_bytes == sum(item.nbytes for item in optimizer.state().values())
    assert planned.trainable_parameters(0) == sum(item.numel() for item in gradients)
    whole = plan_text(PHASES).memory()
    assert memory.activations_bytes < whole.activations_bytes


def test_the_figures_of_cerebras_gpt() -> None:
    memory = paper().memory()
    assert memory.weights_bytes == memory.gradients_bytes == 4 * 111_050_496
    assert memory.optimizer_bytes == 8 * 111_050_496 + 4 * (10 * 12 + 4)
    assert (memory.precision, memory.distribution, memory.devices) == ("float32", "single", 1)
    assert (memory.micro_batch_sequences, memory.context_length) == (2, 2048)
    record = memory.record(Machine())
    parts = [value for name, value in record.items() if name.endswith("_bytes")]
    assert record["device_bytes"] is None
    assert 2 * record["total_bytes"] == sum(part for part in parts if part is not None)


def test_masks_take_a_byte_an_entry(plan_text: PlanText) -> None:
    text = PHASES.replace("batch", "sparsity: {type: static, sparsity: 0.5}, batch")
    planned = plan_text(text)
    matrices = [row for row in planned.shapes.rows if row.in_block and len(row.shape) == 2]
    assert planned.memory().masks_bytes == sum(row.count for row in matrices)
    assert plan_text(PHASES).memory().masks_bytes == 0


def test_the_phase_that_needs_most_counts(plan_text: PlanText) -> None:
    text = """\
phases:
  - {name: short, length: 4 steps, context_length: 8, batch: {sequences: 48}}
  - {name: long, length: 4 steps, context_length: 64, batch: {sequences: 6}}
runtime: {micro_batch_sequences: 6}
"""
    memory = plan_text(text).memory()
    assert (memory.phase, memory.context_length) == ("long", 64)


@pytest.mark.parametrize("keys", ["{}", "{precision: bfloat16, activation_memory: recompute}"])
def test_activations_are_the_models_own(plan_text: PlanText, keys: str) -> None:
    planned = plan_text(f"{PHASES}runtime: {keys}\n")
    memory = planned.memory()
    narrow = keys != "{}"
    batch = MicroBatch(
        24, 64, bfloat16=narrow, activation_memory="recompute" if narrow else "store"
    )
    model = planned.recipe.model
    assert memory.activations_bytes == activation_bytes(model, batch)
    vocabulary, width = planned.shapes.rows[0].shape
    product_bytes = 2 if narrow else 4
    head = working_bytes(24 * 64, vocabulary, width, product_bytes, "cpu")
    assert memory.head_bytes == head
    assert memory.working_weights_bytes == product_copy_bytes(planned.shapes, batch)
    assert (memory.working_weights_bytes > 0) is narrow


def test_the_trainers_micro_batch_on_a_processor() -> None:
    assert paper().memory().micro_batch_sequences == cpu_micro_batch(120, 2048) == 2
    assert cpu_micro_batch(1, 8192) == 1 and cpu_micro_batch(3, 64) == 3
    named = paper("runtime.micro_batch_sequences=500").memory(Machine(devices=4))
    assert named.micro_batch_sequences == 30, "a device's share at most"


def test_the_largest_micro_batch_of_an_accelerator_that_fits() -> None:
    planned = paper()
    room = 0.9 * H100.memory_bytes
    memory = planned.memory(Machine(H100, 1))
    assert memory.precision == "bfloat16" and memory.total_bytes <= room
    larger = paper(f"runtime.micro_batch_sequences={2 * memory.micro_batch_sequences}")
    share = 120
    if memory.micro_batch_sequences < share:
        assert larger.memory(Machine(H100, 1)).total_bytes > room
    tried: list[int] = []
    assert largest_micro_batch(100, lambda n: tried.append(n) is not None or n <= 7) == 6
    assert tried == [100, 50, 25, 12, 6]
    assert largest_micro_batch(5, lambda n: False) is None


def test_recomputation_and_more_devices_make_room() -> None:
    size = ["choose.size=6.7B", "runtime.micro_batch_sequences=4"]
    alone = paper(*size).memory(Machine(H100, 8))
    stored = paper(*size, "runtime.distribution=fsdp").memory(Machine(H100, 8))
    recomputed = paper(
        *size, "runtime.distribution=fsdp", "runtime.activation_memory=recompute"
    ).memory(Machine(H100, 8))
    assert (alone.distribution, stored.distribution) == ("ddp", "fsdp")
    assert alone.weights_bytes == 4 * 6_658_404_352
    assert stored.weights_bytes == pytest.approx(alone.weights_bytes / 8, rel=1e-3)
    assert stored.optimizer_bytes == pytest.approx(alone.optimizer_bytes / 8, rel=1e-3)
    assert stored.gradients_bytes == alone.gradients_bytes, "whole while micro-batches add up"
    assert recomputed.activations_bytes < stored.activations_bytes / 4
    [warning] = alone.warnings(Machine(H100, 8))
    assert warning.startswith("memory: ") and "runtime.distribution=fsdp" in warning


def test_one_micro_batch_needs_no_whole_gradients() -> None:
    kind = ["runtime.distribution=fsdp", "runtime.micro_batch_sequences=15"]
    memory = paper(*kind).memory(Machine(H100, 8))
    assert memory.micro_batch_sequences == 15
    assert memory.gradients_bytes == memory.weights_bytes < 4 * 111_050_496 / 7


def test_a_hybrid_splits_over_its_shards() -> None:
    memory = paper("runtime.distribution={type: fsdp, shards: 4}").memory(Machine(devices=8))
    assert (memory.devices, memory.shards) == (8, 4)
    assert memory.weights_bytes == pytest.approx(111_050_496, rel=1e-3)
    unasked = paper("runtime.distribution={type: fsdp, shards: 4}").memory()
    assert unasked.devices == 4


@pytest.mark.slow
def test_fsdp_holds_what_the_plan_says(tmp_path: Path, plan_text: PlanText) -> None:
    planned = plan_text(
        "phases: [{name: a, length: 4 steps, batch: {sequences: 6}}]\n"
        "runtime: {distribution: fsdp, micro_batch_sequences: 1, device: cpu}\n"
    )
    script = Path(__file__).parent / "scripts" / "split_memory.py"
    out = tmp_path / "bytes.json"
    result = run_together(3, [script, tmp_path / "recipe.yaml", out])
    assert result.returncode == 0, result.stderr
    measured = json.loads(out.read_text())
    memory = planned.memory(Machine(devices=3))
    assert measured["weights_bytes"] == memory.weights_bytes
    assert measured["optimizer_bytes"] == memory.optimizer_bytes
    assert measured["accumulated_bytes"] == memory.gradients_bytes == 4 * planned.shapes.parameters
    assert measured["gradients_bytes"] == memory.weights_bytes


def most_allocated(step: Callable[[], object]) -> int:
    """The largest sum of what torch had allocated while ``step`` ran, above what was there."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiled:
        step()
    assert profiled.profiler is not None and profiled.profiler.kineto_results is not None
    events = list(profiled.profiler.kineto_results.experimental_event_tree())
    sizes = []
    while events:
        event = events.pop()
        events += event.children
        if event.tag.name == "Allocation":
            sizes.append((event.start_time_ns, event.extra_fields.alloc_size))
    total = most = 0
    for _, size in sorted(sizes):
        total += size
        most = max(most, total)
    return most


@pytest.mark.slow
@pytest.mark.parametrize("keys", ["{}", "{activation_memory: recompute}", "{precision: bfloat16}"])
def test_the_total_is_what_a_step_allocates(plan_text: PlanText, keys: str) -> None:
    planned = plan_text(f"{PHASES}runtime: {keys}\n", model=LARGER)
    memory, recipe = planned.memory(), planned.recipe
    decoder = Decoder(recipe.model)
    decoder.activation_memory = recipe.runtime.activation_memory
    optimizer = Optimizer(apply(decoder, planned.table, 0), recipe.optimizer)
    tokens = torch.zeros(memory.micro_batch_sequences, 64, dtype=torch.int64)

    def micro_batch() -> None:
        with torch.autocast("cpu", torch.bfloat16, memory.precision == "bfloat16"):
            loss, _ = decoder.loss(tokens, tokens)
        loss.backward()

    micro_batch()
    kept = [item for item in decoder.parameters() if item.grad is not None]
    held = sum(2 * item.nbytes for item in kept) + sum(x.nbytes for x in optimizer.state().values())
    assert memory.total_bytes == pytest.approx(held + most_allocated(micro_batch), rel=0.1)


@pytest.mark.parametrize(
    ("overrides", "machine", "message"),
    [
        ([], Machine(devices=0), "--devices: must be at least 1"),
        ([], Machine(devices=7), r"phases\.0\.batch: 120 sequences do not divide among 7"),
        (["runtime.distribution=single"], Machine(devices=2), r"runtime\.distribution: single"),
        (["runtime.device=cpu"], Machine(H100), r"runtime\.device: .* not on an H100"),
        (
            ["runtime.distribution={type: fsdp, shards: 3}"],
            Machine(devices=8),
            r"runtime\.distribution\.shards does not divide",
        ),
        (["phases.0.trainable=[nothing]"], Machine(), r"phases\.0\.trainable: 'nothing'"),
    ],
)
def test_what_no_machine_can_hold(overrides: list[str], machine: Machine, message: str) -> None:
    with pytest.raises(UserError, match=message):
        paper(*overrides).memory(machine)


def test_batches_divide_or_name_their_neighbours() -> None:
    check_divides(12, 4, "phases.0.batch")
    with pytest.raises(UserError) as caught:
        check_divides(10, 4, "phases.0.batch")
    assert "allowed: 8 or 12" in str(caught.value)


def test_data_sheets() -> None:
    assert accelerator_of("NVIDIA H100 80GB HBM3") == H100
    assert accelerator_of("NVIDIA H100 PCIe") == accelerator_named("H100 PCIe")
    assert accelerator_of("NVIDIA A100-SXM4-40GB") == accelerator_named("a100 40gb")
    assert accelerator_of("NVIDIA A100-SXM4-80GB") == accelerator_named("A100")
    assert accelerator_of("some other device") is None
    assert [item.bfloat16_flops for item in ACCELERATORS[-2:]] == [989e12, 989e12]
    with pytest.raises(UserError, match="'H10' is not a known accelerator; did you mean H100"):
        accelerator_named("H10")


def test_chosen_rows_keep_their_order() -> None:
    rows = paper().shapes.rows
    norms = chosen_rows(rows, ["final_norm.*", "norm"], "trainable")
    assert [row.role for row in norms] == ["norm"] * len(norms)
    assert norms[-1].name == "final_norm.bias"
    assert chosen_rows(rows, "all", "trainable") == rows


def test_memory_is_plain_values() -> None:
    memory = paper().memory()
    assert isinstance(memory, Memory)
    assert json.loads(json.dumps(memory.record(Machine(H100)))) == memory.record(Machine(H100))
