"""Models in and out of Hugging Face folders: GPT-2, Llama, Ministral, and our own class."""
