"""The gpt-oss architecture on vLLM's layers: checkpoint in, logits out."""
