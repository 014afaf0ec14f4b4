"""A random model with a chat template, in the form that transformers writes."""

from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer
from tokenizers.processors import TemplateProcessing

from tests.tokens.bases import base
from tests.tokens.chat_templates import CHATML, SPECIAL

NAMES = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
CONTEXT = 160


def write_chat_model(
    folder: Path, template: str | None = CHATML, kind: str = "metaspace", context: int = CONTEXT
) -> Any:
    """Write a random Llama with its tokenizer, whose texts begin with ``<s>``; return the model.

    It likes to end its turn.
    """
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    plain = Tokenizer.from_str(base(kind).with_special_tokens(SPECIAL).to_json())
    plain.post_processor = TemplateProcessing(  # pyrefly: ignore
        single="<s> $A", special_tokens=[("<s>", plain.token_to_id("<s>"))]
    )
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=plain, **NAMES)
    tokenizer.chat_template = template
    torch.manual_seed(1)
    configuration = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=context,
        initializer_range=0.4,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        tie_word_embeddings=False,
    )
    model = LlamaForCausalLM(configuration).eval()
    end = tokenizer.convert_tokens_to_ids("<|im_end|>")
    with torch.no_grad():
        model.lm_head.weight[end] *= 4
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return model
