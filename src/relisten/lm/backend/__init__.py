"""Causal LMs of our own: Llama layers, linear layers in float32 and int8, and the tokenizer."""
