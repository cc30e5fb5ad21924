"""The vLLM adapter, the only wing that imports vllm: version 0.32, pinned.

Start reading at engine.py, which is the engine as the rollout process sees it, started by launch.py; running.py is what it asks
of vLLM, in a process of its own (own_process.py) or in a thread (own_thread.py); worker.py is its other half, inside the
engine's workers; memory.py says what the weights need beside the engine; parent_watch.py ends those processes with the one that
started them.
"""
