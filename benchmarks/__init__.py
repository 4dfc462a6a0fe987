"""Measurements: `python -m benchmarks NAME`, each beside stock vLLM in one run."""
