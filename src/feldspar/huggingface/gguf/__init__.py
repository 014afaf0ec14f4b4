"""Models in and out of GGUF, the file format of llama.cpp, by way of Hugging Face's names."""
