"""gpt-oss for stock vLLM: model, MXFP4, sink attention and a platform without an accelerator."""

__version__ = "0.1.0"
