"""The vLLM platform for a machine with no accelerator."""
