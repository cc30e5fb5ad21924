"""TRL's GRPO trainer on the bundled example: same model, 32 x 8 samples a step, both cores, sampling with transformers.
Run by compare.py with TRL on PYTHONPATH; prints one JSON line, the times at which the steps ended."""

import argparse
import json
import time
from pathlib import Path
from typing import Any

import torch
from datasets import load_dataset
from transformers import TrainerCallback
from trl.trainer.grpo_config import GRPOConfig
from trl.trainer.grpo_trainer import GRPOTrainer

PROMPTS, SAMPLES = 32, 8


class StepTimes(TrainerCallback):
    def __init__(self) -> None:
        self.ends_s: list[float] = []

    def on_step_end(self, *_: Any, **__: Any) -> None:
        self.ends_s.append(time.monotonic())


def exact(completions: list[str], reference: list[str], **_: Any) -> list[float | None]:
    return [float(said == wanted) for said, wanted in zip(completions, reference, strict=True)]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--example", type=Path, required=True)
    parser.add_argument("--scratch", type=Path, required=True)
    parser.add_argument("--steps", type=int, required=True)
    parser.add_argument("--threads", type=int, required=True)
    arguments = parser.parse_args()
    started_s = time.monotonic()
    torch.set_num_threads(arguments.threads)
    settings = GRPOConfig(
        output_dir=str(arguments.scratch),
        use_cpu=True,
        bf16=False,
        per_device_train_batch_size=PROMPTS * SAMPLES,
        gradient_accumulation_steps=1,
        gradient_checkpointing=False,
        num_generations=SAMPLES,
        max_completion_length=4,
        max_steps=arguments.steps,
        temperature=1.0,
        beta=0.0,
        learning_rate=3e-4,
        use_vllm=False,
        logging_steps=arguments.steps,
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
    )
    times = StepTimes()
    data = load_dataset("json", data_files=str(arguments.example / "data" / "train.jsonl"), split="train")
    trainer = GRPOTrainer(
        model=str(arguments.example / "model"), args=settings, train_dataset=data, reward_funcs=exact, callbacks=[times]
    )
    trainer.train()
    ends = [round(end - started_s, 4) for end in times.ends_s]
    print(json.dumps({"ends_s": ends, "samples_per_step": PROMPTS * SAMPLES}), flush=True)


if __name__ == "__main__":
    main()
