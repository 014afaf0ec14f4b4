"""A released model: weights, tokenizer, card and a manifest that anyone can verify offline."""
