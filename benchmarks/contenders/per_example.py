"""One step each of the ways to have per-example gradient norms, on the same network."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap
from torch.nn import functional as F

from feldspar.model.decoder import Decoder
from feldspar.noise_scale.tracker import instrument
from feldspar.recipe.sections.model import ModelSettings

Step = Callable[[], Any]


class PlainGPT(nn.Module):
    """A pre-norm transformer of torch's own layers, untied, which every contender can take."""

    def __init__(self, n_layers: int, d_model: int, vocab_size: int, length: int) -> None:
        super().__init__()
        self.tokens = nn.Embedding(vocab_size, d_model)
        self.positions = nn.Embedding(length, d_model)
        self.blocks = nn.ModuleList(PlainBlock(d_model) for _ in range(n_layers))
        self.final_norm = nn.LayerNorm(d_model)
        self.head = nn.Linear(d_model, vocab_size, bias=False)

    def forward(self, tokens: Tensor) -> Tensor:
        """Logits (b, t, vocab)."""
        places = torch.arange(tokens.shape[1]).expand_as(tokens).contiguous()
        x = self.tokens(tokens) + self.positions(places)
        for block in self.blocks:
            x = block(x)
        return self.head(self.final_norm(x))


class PlainBlock(nn.Module):
    """Causal attention with heads of 64, then a feed-forward layer of four times the width."""

    def __init__(self, d_model: int) -> None:
        super().__init__()
        self.attention_norm, self.mlp_norm = nn.LayerNorm(d_model), nn.LayerNorm(d_model)
        self.attention_in = nn.Linear(d_model, 3 * d_model)
        self.attention_out = nn.Linear(d_model, d_model)
        self.mlp_in, self.mlp_out = nn.Linear(d_model, 4 * d_model), nn.Linear(4 * d_model, d_model)

    def forward(self, x: Tensor) -> Tensor:
        """(b, t, d) to (b, t, d)."""
        heads = self.attention_in(self.attention_norm(x)).unflatten(-1, (3, -1, 64))
        query, key, value = heads.permute(2, 0, 3, 1, 4).unbind(0)
        attended = F.scaled_dot_product_attention(query, key, value, is_causal=True)
        x = x + self.attention_out(attended.transpose(1, 2).flatten(2))
        return x + self.mlp_out(F.gelu(self.mlp_in(self.mlp_norm(x)), approximate="tanh"))


def cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """Mean over all tokens."""
    return F.cross_entropy(logits.flatten(0, 1), labels.flatten())


def decoder_loss(shape: dict[str, int]) -> tuple[nn.Module, Step]:
    """Our decoder (tied, fused head) and the loss of a fixed batch."""
    settings = {
        "n_layers": shape["n_layers"],
        "d_model": shape["d_model"],
        "n_heads": max(1, shape["d_model"] // 64),
        "d_ff": 4 * shape["d_model"],
        "vocab_size": shape["vocab_size"],
        "max_sequence_length": shape["length"],
    }
    decoder = Decoder(ModelSettings.model_validate(settings))
    with torch.no_grad():
        for name, value in decoder.named_parameters():
            nn.init.ones_(value) if "norm.weight" in name else nn.init.normal_(value, std=0.02)
    tokens, labels = batch(shape)
    return decoder, lambda: decoder.loss(tokens, labels)[0] / labels.numel()


def plain_loss(shape: dict[str, int]) -> tuple[nn.Module, Step]:
    """The plain network and the loss of a fixed batch."""
    sizes = [shape[name] for name in ("n_layers", "d_model", "vocab_size", "length")]
    model = PlainGPT(*sizes)
    tokens, labels = batch(shape)
    return model, lambda: cross_entropy(model(tokens), labels)


def batch(shape: dict[str, int]) -> tuple[Tensor, Tensor]:
    """Random tokens and labels."""
    size = (2, shape["sequences"], shape["length"])
    tokens, labels = torch.randint(shape["vocab_size"], size)
    return tokens, labels


def untracked(model: nn.Module, loss: Step) -> Step:
    """Forward and backward pass."""

    def step() -> None:
        model.zero_grad()
        loss().backward()

    return step


def tracked(model: nn.Module, loss: Step, coverage: Any, n_examples: int) -> Step:
    """The same with our norms and statistics; ``model`` stays instrumented."""
    tracker = instrument(model, coverage, shared=())

    def step() -> None:
        model.zero_grad()
        with tracker.microbatch():
            loss().backward()
        tracker.finish(n_examples)

    return step


def opacus_step(shape: dict[str, int], ghost: bool) -> Step:
    """Opacus: every example's gradient, or the ghost norms alone (its first backward pass)."""
    from opacus.grad_sample import GradSampleModule, GradSampleModuleFastGradientClipping

    model, _ = plain_loss(shape)
    tokens, labels = batch(shape)
    wrapped = (
        GradSampleModuleFastGradientClipping(model, use_ghost_clipping=True)
        if ghost
        else GradSampleModule(model)
    )

    def step() -> Tensor:
        wrapped.zero_grad()
        cross_entropy(wrapped(tokens), labels).backward()
        if ghost:
            return wrapped.get_norm_sample().square()
        samples = [parameter.grad_sample for parameter in wrapped.parameters()]
        norms = [sample.flatten(1).square().sum(1) for sample in samples]
        for parameter in wrapped.parameters():
            parameter.grad_sample = None
        return torch.stack(norms).sum(0)

    return step


def vmap_step(shape: dict[str, int]) -> Step:
    """torch.func: every example's gradient, then its norm and the sum."""
    model, _ = plain_loss(shape)
    tokens, labels = batch(shape)
    values = {name: parameter.detach() for name, parameter in model.named_parameters()}

    def one(values: dict[str, Tensor], tokens: Tensor, labels: Tensor) -> Tensor:
        logits = functional_call(model, values, (tokens[None],))
        return cross_entropy(logits, labels[None])

    def step() -> None:
        gradients = vmap(grad(one), in_dims=(None, 0, 0))(values, tokens, labels)
        for gradient in gradients.values():
            gradient.flatten(1).square().sum(1)
            gradient.mean(0)

    return step
