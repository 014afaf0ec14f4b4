"""Next-token prediction: the summed loss of sequences, and their micro-batches.

Fine-tuning on pairs does the same with other sequences, in which only some labels count.
"""

from typing import Literal

import torch
from torch import Tensor, nn

from feldspar.model.cross_entropy import IGNORED_LABEL
from feldspar.model.decoder import Decoder
from feldspar.plan.timeline import StepPlan
from feldspar.tokens.sequences.sequence_loader import PrefetchingLoader, Reader, SequenceTensors


class LanguageModelLoss(nn.Module):
    """A module whose forward pass is the sum of the tokens' losses, as wrappers need it."""

    def __init__(self, decoder: Decoder, n_real_vocab: int) -> None:
        super().__init__()
        self.decoder = decoder
        self._n_real_vocab = n_real_vocab

    @property
    def blocks(self) -> nn.ModuleList:
        """The modules that FSDP2 shards one by one."""
        return self.decoder.blocks

    def forward(self, inputs: Tensor, labels: Tensor, *document_ids: Tensor) -> Tensor:
        """Return the summed loss of ``inputs`` and ``labels`` (b, t)."""
        documents = document_ids[0] if document_ids else None
        loss, _ = self.decoder.loss(inputs, labels, documents, self._n_real_vocab)
        return loss


class SequenceBatches:
    """Micro-batches of sequences. Each process takes its contiguous slice of a step."""

    def __init__(
        self,
        reader: Reader,
        *,
        device: torch.device,
        rank: int,
        world_size: int,
        micro_batch_sequences: int,
    ) -> None:
        self.micro_batch_sequences = micro_batch_sequences
        self.average: Literal["valid_tokens", "all_positions"] = "valid_tokens"
        """The divisor of the summed loss. A phase may change it."""
        self._device = device
        self._rank = rank
        self._world_size = world_size
        self._cut_tokens = 0
        self._loader = PrefetchingLoader(reader, pin_memory=device.type == "cuda")

    def prefetch(self, step: StepPlan) -> None:
        """Begin to load this process's part of a step."""
        share = step.sequences // self._world_size
        first = step.first_sequence + self._rank * share
        self._loader.request(step.phase.index, first, first + share)

    @property
    def prefetched(self) -> bool:
        """True if a step was requested and is not taken yet."""
        return self._loader.waiting > 0

    def take(self) -> list[tuple[Tensor, ...]]:
        """Return the micro-batches of the step that was requested first."""
        sequences = self._loader.take()
        self._cut_tokens = sequences.cut_tokens
        tensors = [
            tensor.to(self._device, non_blocking=True) for tensor in _model_inputs(sequences)
        ]
        pieces = (tensor.split(self.micro_batch_sequences) for tensor in tensors)
        return list(zip(*pieces, strict=True))

    def count(self, micro_batch: tuple[Tensor, ...]) -> int:
        """Count the tokens with a label, or all tokens where the mean is over every position."""
        if self.average == "all_positions":
            return micro_batch[1].numel()
        return int((micro_batch[1] != IGNORED_LABEL).sum())

    @property
    def cut_tokens(self) -> int:
        """Tokens that fill-in-the-middle pushed out of the sequences of the last step."""
        return self._cut_tokens

    def close(self) -> None:
        """Stop loading."""
        self._loader.close()


def _model_inputs(sequences: SequenceTensors) -> list[Tensor]:
    labels = sequences.labels
    if sequences.label_mask is not None:
        labels = labels.masked_fill(~sequences.label_mask, IGNORED_LABEL)
    tensors = [sequences.inputs, labels]
    return tensors if sequences.document_ids is None else [*tensors, sequences.document_ids]
