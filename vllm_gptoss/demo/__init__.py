"""`vllm-gptoss demo`: serves the tiny checkpoint and holds a conversation with the official client."""
