"""The vLLM adapter: the only wing that imports vllm. Start reading at engine.py."""
