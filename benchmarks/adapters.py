"""Whole weights with the adapters in them, or adapters alone: what each costs the learner, the wire and the engine.

    python -m benchmarks.adapters [--repeats 3] [--out FOLDER]

On CPU, with a random Qwen2 of 45 million parameters. Two engines, one of them with vLLM's layers for adapters and an adapter
in use, sample the same prompts, each in a process of its own. A swap is while nothing is sampled: merged weights are
loaded over the old ones, an adapter is read from a file into the place of the one before. The wire is arithmetic on shapes.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

PROMPTS, PROMPT_TOKENS, TOKENS = 32, 16, 48
RANK = 16
SHAPES = {
    "Qwen2.5-0.5B": (24, 896, 128, 4864, 494_032_768),
    "Qwen2.5-1.5B": (28, 1536, 256, 8960, 1_543_714_304),
    "Qwen2.5-7B": (28, 3584, 512, 18944, 7_615_616_512),
}
"""Layers, hidden size, width of keys, width of the MLP, parameters."""


def factor_count(layers: int, hidden: int, keys: int, wide: int, rank: int) -> int:
    """How many numbers adapters on all linear layers hold."""
    shapes = [(hidden, hidden), (keys, hidden), (keys, hidden), (hidden, hidden), *[(wide, hidden)] * 3]
    return layers * rank * sum(outputs + inputs for outputs, inputs in shapes)


def write_model(folder: Path) -> None:
    """A random model, and adapters for it that are far from 0."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import Qwen2Config, Qwen2ForCausalLM

    torch.manual_seed(0)
    config = Qwen2Config(
        vocab_size=8192,
        hidden_size=512,
        intermediate_size=1408,
        num_hidden_layers=14,
        num_attention_heads=8,
        num_key_value_heads=4,
        max_position_embeddings=256,
        tie_word_embeddings=True,
    )
    model = Qwen2ForCausalLM(config)
    model.save_pretrained(folder / "model")
    adapted = get_peft_model(model, LoraConfig(r=RANK, target_modules="all-linear", init_lora_weights=False))
    adapted.save_pretrained(str(folder / "adapter"))


def timed(work: Callable[[], object]) -> float:
    """Seconds of processor time, in which a busy machine shows less than in wall time; everything here has one thread."""
    start = time.process_time()
    work()
    return time.process_time() - start


def sample(folder: Path, *, adapters: bool, repeats: int) -> None:
    """One engine: print tokens a second and seconds of a swap, a line of JSON for each repeat but the first."""
    os.environ |= {
        "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
        "VLLM_CPU_OMP_THREADS_BIND": "nobind",
        "VLLM_LOGGING_LEVEL": "ERROR",
        "TORCHDYNAMO_DISABLE": "1",
        "OMP_NUM_THREADS": "1",
    }
    from safetensors.torch import load_file
    from vllm import LLM, SamplingParams
    from vllm.inputs import TokensPrompt
    from vllm.lora.request import LoRARequest

    options: dict[str, Any] = {"enable_lora": True, "max_lora_rank": RANK, "max_loras": 1} if adapters else {}
    llm = LLM(
        str(folder / "model"),
        skip_tokenizer_init=True,
        dtype="float32",
        max_model_len=PROMPT_TOKENS + TOKENS,
        max_num_seqs=PROMPTS,
        kv_cache_memory_bytes=2**28,
        enforce_eager=True,
        enable_prefix_caching=False,
        **options,
    )
    request = LoRARequest("policy", 1, str(folder / "adapter"), load_inplace=True) if adapters else None
    weights = list(load_file(folder / "model" / "model.safetensors").items())
    prompts = [
        TokensPrompt(prompt_token_ids=[(i * 37 + j) % 8192 for j in range(PROMPT_TOKENS)]) for i in range(PROMPTS)
    ]
    sampling = SamplingParams(temperature=1.0, max_tokens=TOKENS, ignore_eos=True, logprobs=0, detokenize=False, seed=0)
    engine = llm.llm_engine

    def swap() -> None:
        if request is not None:
            engine.add_lora(request)
        else:
            llm.collective_rpc(
                "reload_weights", kwargs={"weights_iterator": iter(weights), "is_checkpoint_format": True}
            )

    in_use = LoRARequest("policy", 1, str(folder / "adapter")) if adapters else None
    for repeat in range(repeats + 1):
        swap_s = timed(swap)
        seconds = timed(lambda: llm.generate(prompts, sampling, use_tqdm=False, lora_request=in_use))
        if repeat:
            print("RESULT", json.dumps({"tokens_a_second": PROMPTS * TOKENS / seconds, "swap_s": swap_s}), flush=True)


def whole_weights(folder: Path, repeats: int) -> dict[str, float]:
    """Seconds that the learner takes to copy its weights, as they are and with the adapters added in."""
    import torch

    from learner.engine.policy_model import PolicyModel
    from services.config.lora import LoraConfig
    from services.config.model import ModelConfig

    torch.set_num_threads(1)
    settings = ModelConfig(path=str(folder / "model"), max_length=64, dtype="float32")
    plain, adapted = (PolicyModel(settings, head_chunk_tokens=64, gradient_checkpointing=False) for _ in range(2))
    adapted.adapt(LoraConfig(rank=RANK), seed=0)

    def copies(model: PolicyModel) -> Callable[[], object]:
        return lambda: [model.whole(name, weight).clone() for name, weight in model.named_weights()]

    taken = [(timed(copies(plain)), timed(copies(adapted))) for _ in range(repeats + 1)][1:]
    return {
        "gib": sum(weight.numel() for _, weight in plain.named_weights()) * 4 / 2**30,
        "copy_s": median(first for first, _ in taken),
        "merge_and_copy_s": median(second for _, second in taken),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--out", type=Path, default=Path(".bench/adapters"))
    parser.add_argument("--engine", choices=("merged", "adapters"), help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.engine:
        sample(arguments.folder, adapters=arguments.engine == "adapters", repeats=arguments.repeats)
        return
    found: dict[str, Any] = {
        name: {
            "merged_mib": parameters * 2 / 2**20,
            "adapters_mib": factor_count(layers, hidden, keys, wide, RANK) * 2 / 2**20,
        }
        for name, (layers, hidden, keys, wide, parameters) in SHAPES.items()
    }
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_model(folder)
        found["learner"] = whole_weights(folder, arguments.repeats)
        taken: dict[str, list[dict[str, float]]] = {"merged": [], "adapters": []}
        for kind, results in taken.items():
            results.extend(in_a_process(kind, folder, arguments.repeats))
    for kind, results in taken.items():
        found[kind] = {key: median(result[key] for result in results) for key in results[0]}
    arguments.out.mkdir(parents=True, exist_ok=True)
    (arguments.out / "adapters.json").write_text(json.dumps(found, indent=2), encoding="utf-8")
    print(json.dumps(found, indent=2))


def in_a_process(kind: str, folder: Path, repeats: int) -> list[dict[str, float]]:
    command = [sys.executable, "-m", "benchmarks.adapters", "--engine", kind, "--folder", str(folder)]
    done = subprocess.run([*command, "--repeats", str(repeats)], capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"the engine for {kind} ended with {done.returncode}:\n{done.stderr[-3000:]}")
    return [json.loads(line.removeprefix("RESULT ")) for line in done.stdout.splitlines() if line.startswith("RESULT ")]


if __name__ == "__main__":
    main()
