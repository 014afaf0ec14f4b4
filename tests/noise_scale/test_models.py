"""Whole models as they are: our decoder, GPT-2 and Llama of Hugging Face, shared layers."""

from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch import Tensor, nn
from torch._dynamo.testing import CompileCounterWithBackend
from torch.nn import functional as F

from feldspar.core.errors import UserError
from feldspar.model.decoder import Decoder
from feldspar.model.layers import RMSNorm as OurRMSNorm
from feldspar.noise_scale.tracker import instrument
from feldspar.recipe.sections.model import ModelSettings
from tests.noise_scale.conftest import assert_norms, looped_norms, measure
from tests.rounding import assert_within_rounding, terms_of

SHAPE = {
    "n_layers": 2,
    "d_model": 16,
    "n_heads": 4,
    "d_ff": 24,
    "vocab_size": 40,
    "max_sequence_length": 32,
}
VARIANTS = {
    "GPT": {},
    "untied": {"tied_embeddings": False},
    "Llama": {"positions": "rotary", "norm": "rms", "feed_forward": "swiglu", "bias": False},
    "ALiBi": {"positions": "alibi", "n_kv_heads": 2},
    "Sparse Parallel": {"sparse_iso_flop": {"type": "parallel", "sparsity": 0.5}},
    "Sparse Factorized": {"sparse_iso_flop": {"type": "factorized", "sparsity": 0.5}},
    "Sparse Doped": {"sparse_iso_flop": {"type": "doped", "sparsity": 0.5}},
}


def make_decoder(
    dtype: torch.dtype = torch.float64, std: float = 0.3, **changes: object
) -> Decoder:
    decoder = Decoder(ModelSettings.model_validate(SHAPE | changes)).to(dtype)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, value in decoder.named_parameters():
            drawn = torch.randn(value.shape, generator=generator, dtype=torch.float64)
            value.copy_(std * drawn + name.endswith("norm.weight"))
    return decoder


def draw(n_examples: int, length: int = 12) -> tuple[Tensor, Tensor]:
    """Tokens with repeats, and labels of which some are padding."""
    generator = torch.Generator().manual_seed(1)
    tokens = torch.randint(40, (n_examples, length), generator=generator)
    labels = torch.randint(39, (n_examples, length), generator=generator)
    labels[0, length // 2 :] = -100
    return tokens, labels


def decoder_losses(
    decoder: Decoder, tokens: Tensor, labels: Tensor, micro_batches: int = 1, **options: Tensor
) -> tuple[list[Callable[[], Tensor]], Callable[[int], Tensor]]:
    """The token mean's part of each micro-batch, and of each example."""
    count = int((labels != -100).sum())

    def part(of: slice) -> Tensor:
        own = {name: value[of] for name, value in options.items()}
        return decoder.loss(tokens[of], labels[of], n_real_vocab=39, **own)[0] / count

    size = len(tokens) // micro_batches
    slices = [slice(begin, begin + size) for begin in range(0, len(tokens), size)]
    return [lambda of=of: part(of) for of in slices], lambda i: part(slice(i, i + 1))


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("micro_batches", [1, 2, 4])
def test_our_decoder(variant, micro_batches):
    decoder = make_decoder(**VARIANTS[variant])
    losses, one = decoder_losses(decoder, *draw(4), micro_batches)
    stats = measure(decoder, losses, 4)
    assert_norms(stats, looped_norms(decoder, one, 4))
    total = sum(float(value.grad.square().sum()) for value in decoder.parameters())
    assert stats["total"].grad_sq == pytest.approx(total)
    assert {*stats.groups} >= {"total", "norm", "attention", "feed_forward", "embedding"}
    assert ("output" in stats) == (variant == "untied")


def test_float32_is_close():
    decoder = make_decoder(torch.float32, std=0.1)
    tokens, labels = draw(4)
    losses, one = decoder_losses(decoder, tokens, labels, 2)
    stats = measure(decoder, losses, 4)
    expected = looped_norms(decoder.double(), one, 4)
    for name, norms in stats.per_example.items():
        assert_within_rounding(norms, expected[name], 2 * terms_of(decoder, tokens), torch.float32)


def test_documents_within_a_sequence_and_positions_that_restart():
    decoder = make_decoder()
    ids = torch.tensor([[0] * 5 + [1] * 7, [0] * 12, [0] * 3 + [1] * 4 + [2] * 5])
    losses, one = decoder_losses(decoder, *draw(3), document_ids=ids)
    assert_norms(measure(decoder, losses, 3), looped_norms(decoder, one, 3))


def test_sums_do_not_depend_on_the_split_or_order_of_a_step():
    tokens, labels = draw(4)
    decoder, results = make_decoder(), []
    for order, micro_batches in ((slice(None), 1), (slice(None), 4), ([2, 0, 3, 1], 2)):
        losses, _ = decoder_losses(decoder, tokens[order], labels[order], micro_batches)
        stats = measure(decoder, losses, 4)
        results.append([(m.m1, m.grad_sq) for m in stats.values()])
    for other in results[1:]:
        for one, two in zip(results[0], other, strict=True):
            assert two == pytest.approx(one, rel=1e-10, abs=1e-20)


def test_a_scaled_loss_scales_both_moments_and_a_loss_scale_none():
    decoder = make_decoder()
    (loss,), _ = decoder_losses(decoder, *draw(3))
    plain, times_three = measure(decoder, [loss], 3), measure(decoder, [lambda: 3 * loss()], 3)
    for name, moments in times_three.items():
        assert moments.m1 == pytest.approx(9 * plain[name].m1)
        assert moments.grad_sq == pytest.approx(9 * plain[name].grad_sq)
    tracker = instrument(decoder, "all", per_example=True)
    decoder.zero_grad()
    with tracker.microbatch():
        (2**16 * loss()).backward()
    scaled = tracker.finish(3, loss_scale=2.0**16)
    for name, moments in scaled.items():
        assert moments.m1 == pytest.approx(plain[name].m1)
        assert moments.grad_sq == pytest.approx(plain[name].grad_sq)
    name = "final_norm.weight"
    torch.testing.assert_close(scaled.per_example[name], plain.per_example[name])


def test_duplicated_examples_are_not_independent():
    tokens, labels = draw(3)
    decoder = make_decoder()
    (loss,), _ = decoder_losses(decoder, tokens, labels)
    (twice,), _ = decoder_losses(decoder, tokens.repeat(2, 1), labels.repeat(2, 1))
    once, doubled = measure(decoder, [loss], 3)["total"], measure(decoder, [twice], 6)["total"]
    assert doubled.m1 == pytest.approx(once.m1) and doubled.grad_sq == pytest.approx(once.grad_sq)
    assert doubled.noise == pytest.approx(once.noise * 2 * (3 - 1) / (2 * 3 - 1))
    assert doubled.signal_sq > once.signal_sq


@pytest.mark.parametrize("coverage", ["norm", "all"])
@pytest.mark.parametrize(
    ("reversible", "memory"),
    [
        (False, "recompute"),
        ("revnet", "recompute"),
        ("revnet", "reversible"),
        ("reformer", "recompute"),
        ("reformer", "reversible"),
    ],
)
def test_recomputed_activations_change_nothing(reversible, memory, coverage):
    """Each example counts once, though blocks run twice."""
    decoder = make_decoder(reversible=reversible)
    losses, one = decoder_losses(decoder, *draw(4), 2)
    decoder.activation_memory = memory
    stats = measure(decoder, losses, 4, coverage=coverage)
    assert_norms(stats, looped_norms(decoder, one, 4))


def test_masked_entries_are_left_out_of_contributions():
    decoder = make_decoder()
    generator = torch.Generator().manual_seed(2)
    masks = {
        name: torch.rand(value.shape, generator=generator) < 0.4
        for name, value in decoder.named_parameters()
    }
    losses, one = decoder_losses(decoder, *draw(3))
    expected = {name: [] for name in masks}
    for example in range(3):
        gradients = torch.autograd.grad(one(example), list(decoder.parameters()))
        for (name, mask), gradient in zip(masks.items(), gradients, strict=True):
            expected[name].append((gradient * mask).square().sum())
    stats = measure(decoder, losses, 3, masks=masks)
    assert_norms(stats, {name: torch.stack(values) for name, values in expected.items()})


def test_autocast_gives_norms_close_to_float32():
    decoder = make_decoder(torch.float32, std=0.1)
    (loss,), one = decoder_losses(decoder, *draw(4))

    def autocast_loss():
        with torch.autocast("cpu", torch.bfloat16):
            return loss()

    stats = measure(decoder, [autocast_loss], 4, check_gradients=False)
    expected = looped_norms(decoder.double(), one, 4)
    for name, moments in stats.parameters.items():
        exact = 4 * float(expected[name].sum())
        # 8 bits: a few percent of one tensor; keys' biases have no gradient but rounding
        assert moments.m1 == pytest.approx(exact, rel=0.05, abs=1e-3 * stats["total"].m1), name
    exact = 4 * sum(float(norms.sum()) for norms in expected.values())
    assert stats["total"].m1 == pytest.approx(exact, rel=0.01)


def test_the_instrumented_loss_under_autocast_is_the_plain_one():
    decoder = make_decoder(torch.float32, std=0.1, norm="rms")
    (loss,), _ = decoder_losses(decoder, *draw(4))
    tracker = instrument(decoder, "all")
    with torch.autocast("cpu", torch.bfloat16):
        plain = loss()
        with tracker.microbatch():
            tracked = loss()
    torch.testing.assert_close(tracked, plain, rtol=1e-3, atol=0)


def transformers_model(kind: str, **changes: object) -> nn.Module:
    import transformers

    small = {"vocab_size": 40, "bos_token_id": 0, "eos_token_id": 0, "pad_token_id": None}
    if kind == "gpt2":
        config = transformers.GPT2Config(**small, n_positions=32, n_embd=16, n_layer=2, n_head=2)
        return transformers.GPT2LMHeadModel(config).double().eval()
    widths = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2}
    config = transformers.LlamaConfig(**small, **widths, **heads, **changes)
    return transformers.LlamaForCausalLM(config).double().eval()


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("gpt2", {}),
        ("llama", {"tie_word_embeddings": False}),
        ("llama", {"tie_word_embeddings": True}),
    ],
    ids=["GPT-2", "Llama", "Llama, tied"],
)
@pytest.mark.parametrize("micro_batches", [1, 2])
def test_a_hugging_face_model(kind, options, micro_batches):
    model = transformers_model(kind, **options)
    tokens, _ = draw(4)

    def mean(of):
        return model(input_ids=tokens[of], labels=tokens[of]).loss * len(tokens[of]) / 4

    size = 4 // micro_batches
    slices = [slice(begin, begin + size) for begin in range(0, 4, size)]
    stats = measure(model, [lambda of=of: mean(of) for of in slices], 4)
    assert_norms(stats, looped_norms(model, lambda i: mean(slice(i, i + 1)), 4))
    assert {*stats.groups} >= {"total", "norm", "attention", "feed_forward", "embedding"}


def test_hugging_face_checkpointing_and_training_mode():
    model = transformers_model("gpt2")
    tokens, _ = draw(3)
    expected = looped_norms(
        model, lambda i: model(input_ids=tokens[i : i + 1], labels=tokens[i : i + 1]).loss / 3, 3
    )
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    model.train()
    enable = getattr(model, "activation_checkpointing_enable", model.gradient_checkpointing_enable)
    enable({"use_reentrant": False})
    stats = measure(model, [lambda: model(input_ids=tokens, labels=tokens).loss], 3)
    assert_norms(stats, expected)


class Looped(nn.Module):
    """One block run three times, embedding read twice and tied to the head: as ALBERT or T5."""

    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(11, 6)
        self.norm = nn.LayerNorm(6)
        self.linear = nn.Linear(6, 6)
        self.gate = nn.Conv1d(6, 6, 1)

    def forward(self, ids):
        x = self.embedding(ids) + self.embedding(ids.flip(1))
        for _ in range(3):
            x = x + torch.tanh(self.linear(self.norm(x)))
            x = x + self.gate(x.mT).mT
        return F.linear(x, self.embedding.weight) if self.training else x


def test_parameters_used_several_times_add_up_before_squaring():
    torch.manual_seed(0)
    model = Looped().double().eval()
    ids = torch.randint(11, (3, 5))

    def loss(of=slice(None)):
        return model(ids[of]).square().sum()

    stats = measure(model, [loss], 3)
    assert_norms(stats, looped_norms(model, lambda i: loss(slice(i, i + 1)), 3))


def test_a_weight_used_outside_of_its_module_is_refused():
    torch.manual_seed(0)
    model = Looped().train()
    tracker = instrument(model, "all")
    with (
        pytest.raises(UserError, match=r"embedding.weight gets gradient from outside"),
        tracker.microbatch(),
    ):
        model(torch.randint(11, (3, 5))).square().sum().backward()


class Flat(nn.Module):
    """Layers that get all positions of all examples in a row, as in OPT."""

    def __init__(self):
        super().__init__()
        self.embedding, self.norm, self.head = nn.Embedding(9, 6), nn.LayerNorm(6), nn.Linear(6, 9)

    def forward(self, ids):
        return self.head(self.norm(self.embedding(ids).flatten(0, 1))).view(*ids.shape, -1)


def test_positions_in_a_row_are_taken_apart_again():
    torch.manual_seed(0)
    model, ids, upstream = Flat().double(), torch.randint(9, (3, 4)), torch.randn(3, 4, 9).double()

    def loss(of=slice(None)):
        return (model(ids[of]) * upstream[of]).sum()

    stats = measure(model, [loss], 3)
    assert_norms(stats, looped_norms(model, lambda i: loss(slice(i, i + 1)), 3))


def test_attention_of_torch_runs_one_example_at_a_time():
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(8, 2, 12, dropout=0.0, batch_first=True).double()
    x, upstream = torch.randn(3, 5, 8).double(), torch.randn(3, 5, 8).double()

    def loss(of=slice(None)):
        return (layer(x[of]) * upstream[of]).sum()

    stats = measure(layer, [loss], 3)
    assert_norms(stats, looped_norms(layer, lambda i: loss(slice(i, i + 1)), 3))


OUR_NORM = partial(OurRMSNorm, eps=1e-6)


@pytest.mark.parametrize("norm", [nn.LayerNorm, OUR_NORM], ids=str)
def test_a_compiled_norm_gives_sums_out_of_one_graph(norm):
    torch._dynamo.reset()
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 6), norm(6), nn.Linear(6, 5)).double()
    x, upstream = torch.randn(4, 3, 5).double(), torch.randn(4, 3, 5).double()

    def loss(of):
        return (model(x[of]) * upstream[of]).sum()

    expected = looped_norms(model, lambda i: loss(slice(i, i + 1)), 4)
    counter = CompileCounterWithBackend("aot_eager")
    model.compile(fullgraph=True, backend=counter)
    tracker = instrument(model, "norm")
    for _ in range(3):
        model.zero_grad()
        for begin in (0, 2):
            with tracker.microbatch():
                loss(slice(begin, begin + 2)).backward()
        stats = tracker.finish(4)
        for name, moments in stats.parameters.items():
            assert moments.m1 == pytest.approx(4 * float(expected[name].sum()))
    assert counter.frame_count == 1  # micro-batch after micro-batch runs the same graph


@pytest.mark.slow
@pytest.mark.parametrize("coverage", ["norm", "all"])
@pytest.mark.parametrize("backend", ["aot_eager", "inductor"])
def test_compiled_blocks_give_the_same(coverage, backend):
    torch._dynamo.reset()
    decoder = make_decoder(**VARIANTS["Llama"], n_layers=1)
    losses, one = decoder_losses(decoder, *draw(4), 2)
    expected = looped_norms(decoder, one, 4)
    for block in decoder.blocks:
        block.compile(backend=backend, fullgraph=coverage == "norm")
    tracker = instrument(decoder, coverage)
    for _ in range(2):
        decoder.zero_grad()
        for loss in losses:
            with tracker.microbatch():
                loss().backward()
        stats = tracker.finish(4)
        for name, moments in stats.parameters.items():
            assert moments.m1 == pytest.approx(4 * float(expected[name].sum()))


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["gpt2", "llama"])
def test_a_compiled_hugging_face_model(kind):
    torch._dynamo.reset()
    model = transformers_model(kind)
    tokens, _ = draw(3)
    expected = looped_norms(
        model, lambda i: model(input_ids=tokens[i : i + 1], labels=tokens[i : i + 1]).loss / 3, 3
    )
    tracker = instrument(torch.compile(model, backend="aot_eager"), "norm")
    for layer in model.transformer.h if kind == "gpt2" else model.model.layers:
        # Norms of other libraries run one example at a time, which breaks the graph.
        layer.compile(backend="aot_eager", fullgraph=kind == "gpt2")
    with tracker.microbatch():
        model(input_ids=tokens, labels=tokens).loss.backward()
    stats = tracker.finish(3)
    for name, moments in stats.parameters.items():
        assert moments.m1 == pytest.approx(3 * float(expected[name].sum()))


@pytest.mark.slow
def test_compiled_layers_with_norms_of_single_examples():
    torch._dynamo.reset()
    decoder = make_decoder()
    losses, one = decoder_losses(decoder, *draw(4), 2)
    expected = looped_norms(decoder, one, 4)
    for block in decoder.blocks:
        block.compile(backend="aot_eager")
    stats = measure(decoder, losses, 4, coverage="norm")
    assert_norms(stats, expected)
