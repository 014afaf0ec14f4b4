"""The decoder: embeddings, blocks, final norm, head; the loss over tokens.

Shapes: b sequences, t positions, d = d_model.
"""

from typing import ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from feldspar.core.errors import UserError
from feldspar.core.progress import say
from feldspar.core.rows import ParameterRole, Role
from feldspar.model.attention import Attention
from feldspar.model.attention_paths import soft_capped
from feldspar.model.context import KeyValueCache, SequenceContext
from feldspar.model.cross_entropy import (
    GradientObserver,
    linear_cross_entropy,
    linear_token_losses,
)
from feldspar.model.feed_forward import FeedForward
from feldspar.model.layers import Embedding, Linear, PositionEmbedding, SoftPrompt, make_norm
from feldspar.model.position_scaling import (
    Length,
    grows_with_length,
    scaled_frequencies,
    scaled_slopes,
)
from feldspar.model.positions import (
    alibi_slopes,
    document_lengths,
    document_positions,
    rotary_frequencies,
    rotary_tables,
    rounded_biases,
)
from feldspar.model.two_streams import through_two_streams
from feldspar.recipe.sections.model import (
    AlibiPositions,
    LearnedPositions,
    ModelSettings,
    RotaryPositions,
)
from feldspar.recipe.sections.position_scaling import (
    LinearScaling,
    NoScaling,
    PositionScaling,
    scaling_misfit,
)
from feldspar.reversible.chain import ActivationMemory

Branch = Literal["layer", "attention", "feed_forward"]
"""The addends of a block to a residual stream: both of its parts, or one of them."""


def resolved_vocab_size(settings: ModelSettings) -> int:
    """Return the number of rows of the embedding.

    Raises UserError where the number is left to the tokenizer.
    """
    if settings.vocab_size is None:
        raise UserError(
            "model.vocab_size is not set",
            do="set it, or let the tokenizer of the shards fill it in",
        )
    return settings.vocab_size


class Block(nn.Module):
    """Attention and feed-forward, each with its norms, added to the residual stream.

    Attention comes first, unless both are parallel. A norm that ``settings`` leave out is None.
    """

    is_residual_block = True
    forward_multipliers: ClassVar[dict[str, str]] = {"residual_multiplier": "residual"}

    def __init__(self, settings: ModelSettings, layer: int) -> None:
        super().__init__()
        self.residual_multiplier = 1.0
        self.dropout = settings.dropout
        self.parallel = settings.branches != "sequential"
        before, after = settings.norm.place != "after", settings.norm.place != "before"

        def norm(wanted: bool) -> nn.Module | None:
            return make_norm(settings.d_model, settings) if wanted else None

        self.attention_norm = norm(before)
        self.attention = Attention(settings, layer)
        self.attention_output_norm = norm(after)
        self.feed_forward_norm = norm(before and settings.branches != "parallel_one_norm")
        self.feed_forward = FeedForward(settings)
        self.feed_forward_output_norm = norm(after)

    def forward(
        self, x_btd: Tensor, context: SequenceContext, branch: Branch | None = None
    ) -> Tensor:
        """Map (b, t, d) to (b, t, d): the stream after the block, or the addend of a ``branch``."""
        if branch == "feed_forward":
            return self._scaled(self._fed_forward(_normalised(self.feed_forward_norm, x_btd)))
        normal = _normalised(self.attention_norm, x_btd)
        addend = self._attended(normal, context)
        if branch == "attention":
            return self._scaled(addend)
        attended = torch.add(x_btd, addend, alpha=self.residual_multiplier)
        read = x_btd if self.parallel else attended
        if self.feed_forward_norm is not None or not self.parallel:
            normal = _normalised(self.feed_forward_norm, read)
        fed = self._fed_forward(normal)
        if branch == "layer":
            return self._scaled(addend + fed)
        return torch.add(attended, fed, alpha=self.residual_multiplier)

    def _attended(self, normal_btd: Tensor, context: SequenceContext) -> Tensor:
        return self._finished(self.attention(normal_btd, context), self.attention_output_norm)

    def _fed_forward(self, normal_btd: Tensor) -> Tensor:
        return self._finished(self.feed_forward(normal_btd), self.feed_forward_output_norm)

    def _finished(self, branch_btd: Tensor, norm: nn.Module | None) -> Tensor:
        branch_btd = _normalised(norm, branch_btd)
        if self.dropout and self.training:
            branch_btd = F.dropout(branch_btd, self.dropout)
        return branch_btd

    def _scaled(self, branch_btd: Tensor) -> Tensor:
        multiplier = self.residual_multiplier
        return branch_btd if multiplier == 1.0 else branch_btd * multiplier


def _normalised(norm: nn.Module | None, x_btd: Tensor) -> Tensor:
    return x_btd if norm is None else norm(x_btd)


class Decoder(nn.Module):
    """A decoder-only transformer. `parametrization.apply` sets its initial values.

    ``activation_memory`` other than ``store`` saves memory by a second forward pass of each block;
    ``reversible`` needs settings that are. With a ``soft_prompt_length``, token ids from the
    vocabulary's size on stand for learned vectors.
    """

    forward_multipliers: ClassVar[dict[str, str]] = {
        "embedding_multiplier": "embedding",
        "output_multiplier": "output",
    }
    forward_methods: ClassVar[tuple[str, ...]] = ("loss", "token_losses", "logits")
    """Methods other than forward that use parameters, to be registered with FSDP2."""
    gradient_observers: ClassVar[dict[str, str]] = {"head_observer": "head_weight"}
    """Maps an attribute to the parameter whose gradient ``loss`` computes itself. An observer that
    must see each sequence's share of the gradient is set as this attribute.
    """

    def __init__(self, settings: ModelSettings, soft_prompt_length: int = 0) -> None:
        super().__init__()
        vocab_size = resolved_vocab_size(settings)
        self.settings = settings
        self.activation_memory: ActivationMemory = "store"
        self.embedding_multiplier = 1.0
        self.output_multiplier = 1.0
        self.head_observer: GradientObserver | None = None
        self.position_scaling: PositionScaling = NoScaling()
        self._told_of_length = False
        d_model = settings.d_model
        self.token_embedding = Embedding(vocab_size, d_model, Role.EMBEDDING)
        self.position_embedding = (
            PositionEmbedding(settings.max_sequence_length, d_model)
            if isinstance(settings.positions, LearnedPositions)
            else None
        )
        self.embedding_norm = make_norm(d_model, settings) if settings.embedding_norm else None
        self.blocks = nn.ModuleList(Block(settings, layer) for layer in range(settings.n_layers))
        self.final_norm = make_norm(d_model, settings)
        self.output = (
            None
            if settings.tied_embeddings
            else Linear(d_model, vocab_size, bias=False, role=ParameterRole(Role.OUTPUT))
        )
        self.soft_prompt = (
            SoftPrompt(soft_prompt_length, d_model, vocab_size) if soft_prompt_length else None
        )

    @property
    def head_weight(self) -> Tensor:
        """The output matrix (vocab, d): the token embedding itself when tied."""
        return self.token_embedding.weight if self.output is None else self.output.weight

    def scale_positions(self, scaling: PositionScaling) -> None:
        """Set how positions are scaled from now on, as a phase or an evaluation needs. Weights
        stay.

        Raises UserError when the model's positions cannot be scaled so.
        """
        misfit = scaling_misfit(scaling, self.settings)
        if misfit is not None:
            raise UserError(f"position_scaling: {misfit}")
        self.position_scaling = scaling

    def forward(
        self,
        tokens: Tensor,
        *,
        positions: Tensor | None = None,
        document_ids: Tensor | None = None,
        cache: KeyValueCache | None = None,
        scaled_length: int | None = None,
    ) -> Tensor:
        """Return hidden states (b, t, d) of tokens (b, t), after the final norm.

        ``positions`` (t,) or (b, t) replace the count from the sequence's, document's or cache's
        beginning; ``document_ids`` (b, t) keep attention and positions inside documents.
        ``scaled_length`` is the length that a scaling which grows with the sequence counts by: by
        default the cache's room, which is known ahead, else that of ``tokens`` or the document.
        Raises UserError for a position that a learned table lacks, or documents with a cache.
        """
        return self._hidden(tokens, positions, document_ids, cache, scaled_length)

    def logits(self, hidden: Tensor) -> Tensor:
        """Return logits (..., vocab) of hidden states (..., d)."""
        if self.output_multiplier != 1.0:
            hidden = hidden * self.output_multiplier  # smaller than the logits
        logits = F.linear(hidden, self.head_weight)
        cap = self.settings.logit_soft_cap
        return logits if cap is None else soft_capped(logits, cap)

    def loss(
        self,
        tokens: Tensor,
        labels: Tensor,
        document_ids: Tensor | None = None,
        n_real_vocab: int | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Return the sum of the tokens' negative log-likelihoods (float32), and their number.

        ``labels`` (b, t) hold the token to predict at each position; -100 is ignored.
        """
        hidden = self._hidden(tokens, None, document_ids, None)
        return linear_cross_entropy(
            hidden,
            self.head_weight,
            labels,
            self.output_multiplier,
            n_real_vocab,
            self.head_observer,
            self.settings.logit_soft_cap,
        )

    def token_losses(
        self,
        tokens: Tensor,
        labels: Tensor,
        document_ids: Tensor | None = None,
        n_real_vocab: int | None = None,
    ) -> Tensor:
        """Return the float32 negative log-likelihood of each label (b, t); 0 where ignored. No
        gradient.
        """
        with torch.no_grad():
            hidden = self._hidden(tokens, None, document_ids, None)
            return linear_token_losses(
                *(hidden, self.head_weight, labels, self.output_multiplier, n_real_vocab),
                self.settings.logit_soft_cap,
            )

    def _hidden(
        self,
        tokens: Tensor,
        positions: Tensor | None,
        document_ids: Tensor | None,
        cache: KeyValueCache | None,
        scaled_length: int | None = None,
    ) -> Tensor:
        if cache is not None:
            if document_ids is not None:
                raise UserError("document_ids cannot be combined with a cache")
            cache.require_room(tokens.shape[1])
        begin = 0 if cache is None else cache.length_tokens
        # Check only positions that the caller chose: reading values waits for the device.
        last = begin + tokens.shape[1] - 1 if positions is None else int(positions.max())
        self._require_positions(last)
        if positions is None and document_ids is not None:
            positions = document_positions(document_ids)
        elif positions is None and begin:
            positions = torch.arange(begin, begin + tokens.shape[1], device=tokens.device)
        x_btd = self._embed(tokens, positions)
        context = self._context(tokens, positions, document_ids, cache, scaled_length)
        x_btd = self._through_blocks(x_btd, context)
        if cache is not None:
            cache.advance(tokens.shape[1])
        return self.final_norm(x_btd)

    def _through_blocks(self, x_btd: Tensor, context: SequenceContext) -> Tensor:
        learns = torch.is_grad_enabled() and context.cache is None
        memory = self.activation_memory if learns else "store"
        if self.settings.reversible is not None:
            return through_two_streams(
                self.blocks, x_btd, context, self.settings.reversible, memory
            )
        if memory == "reversible":
            raise UserError(
                "activation_memory is reversible, but the decoder is not",
                do="set model.reversible: true, or use recompute",
            )
        for block in self.blocks:
            if memory == "store":
                x_btd = block(x_btd, context)
            else:
                x_btd = checkpoint(block, x_btd, context, use_reentrant=False)
        return x_btd

    def _require_positions(self, last: int) -> None:
        if last < 0:
            raise UserError("a decoder needs at least one token", found="0 tokens")
        longest = self.settings.max_sequence_length
        plain = self.settings.positions.type == "alibi" and self.position_scaling.type == "none"
        if plain and last >= longest and not self._told_of_length:
            self._told_of_length = True
            say(
                f"warning: {last + 1:,} tokens are more than the model's {longest:,}, and its "
                "ALiBi slopes are not scaled; position_scaling or extend-context scales them"
            )
        table = self.position_embedding
        if table is not None and last >= table.n_positions:
            raise UserError(
                f"position {last} lies beyond the learned table of {table.n_positions} rows",
                do="shorten the context, or train with a larger max_sequence_length",
            )

    def _embed(self, tokens: Tensor, positions: Tensor | None) -> Tensor:
        if self.soft_prompt is None:
            x_btd = self.token_embedding(tokens)
        else:
            x_btd = self.soft_prompt(tokens, self.token_embedding)
        if self.position_embedding is not None:
            x_btd = self.position_embedding(x_btd, positions)
        x_btd = _normalised(self.embedding_norm, x_btd)
        if self.embedding_multiplier != 1.0:
            x_btd = x_btd.mul_(self.embedding_multiplier)  # neither gather nor sum kept it
        if self.settings.dropout and self.training:
            x_btd = F.dropout(x_btd, self.settings.dropout)
        return x_btd

    def _context(
        self,
        tokens: Tensor,
        positions: Tensor | None,
        document_ids: Tensor | None,
        cache: KeyValueCache | None,
        scaled_length: int | None,
    ) -> SequenceContext:
        kind, scaling, device = self.settings.positions, self.position_scaling, tokens.device
        weight_dtype = self.token_embedding.weight.dtype
        dtype = torch.float64 if weight_dtype == torch.float64 else torch.float32
        rotary = window_rotary = slopes = key_biases = None
        if positions is None:
            positions = torch.arange(tokens.shape[1], device=device)
        length = self._length(positions, document_ids, cache, scaled_length)
        if isinstance(kind, RotaryPositions):
            width = self.settings.head_width
            turned, multiplier = scaled_frequencies(kind, width, scaling, length, dtype, device)
            rotary = rotary_tables(positions, turned)
            if multiplier != 1.0:
                rotary = rotary[0] * multiplier, rotary[1] * multiplier
            if kind.window_base is not None:
                plain = rotary_frequencies(kind, width, dtype, device, kind.window_base)
                window_rotary = rotary_tables(positions, plain)
        elif isinstance(kind, AlibiPositions):
            values = alibi_slopes(self.settings.n_heads, kind.max_exponent)
            slopes = scaled_slopes(values, scaling, length, dtype, device)
            if kind.rounded:
                if cache is not None:
                    positions = torch.arange(cache.length_tokens + tokens.shape[1], device=device)
                key_biases = rounded_biases(slopes, positions) * kind.slope_multiplier
            slopes = slopes * kind.slope_multiplier
        return SequenceContext(rotary, window_rotary, slopes, key_biases, document_ids, cache)

    def _length(
        self,
        positions: Tensor,
        document_ids: Tensor | None,
        cache: KeyValueCache | None,
        scaled_length: int | None,
    ) -> Length:
        """Return the sequence length of the active position scaling. Other scalings ignore it."""
        scaling = self.position_scaling
        if isinstance(scaling, LinearScaling) and scaling.scope == "query":
            return positions + 1
        if not grows_with_length(scaling) or scaled_length is not None:
            return scaled_length or 1
        if cache is not None:
            return cache.max_length_tokens
        return positions.shape[-1] if document_ids is None else document_lengths(document_ids)
