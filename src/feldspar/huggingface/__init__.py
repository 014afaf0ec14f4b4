"""Models in and out of Hugging Face folders: GPT-2, Llama, and our own self-contained class."""
