"""TRL's GRPO trainer on one case of the comparison: same model, as many samples a step, both cores, sampling with transformers.
Run by compare.py; prints one JSON line: the times at which the steps ended, and which share of their groups teaches nothing."""

import argparse
import json
import re
import time
from pathlib import Path
from typing import Any

import torch
from datasets import load_dataset
from transformers import TrainerCallback
from trl.trainer.grpo_config import GRPOConfig
from trl.trainer.grpo_trainer import GRPOTrainer


class StepTimes(TrainerCallback):
    def __init__(self) -> None:
        self.ends_s: list[float] = []
        self.equal_rewards: list[float] = []
        """The share of groups in which all samples have the same reward, of each step."""

    def on_step_end(self, *_: Any, **__: Any) -> None:
        self.ends_s.append(time.monotonic())

    def on_log(self, *_: Any, logs: dict[str, float] | None = None, **__: Any) -> None:
        if logs and "frac_reward_zero_std" in logs:
            self.equal_rewards.append(logs["frac_reward_zero_std"])


def exact(completions: list[str], reference: list[str], **_: Any) -> list[float | None]:
    return [float(said == wanted) for said, wanted in zip(completions, reference, strict=True)]


def contains(completions: list[str], reference: list[str], **_: Any) -> list[float | None]:
    return [float(re.search(wanted, said) is not None) for said, wanted in zip(completions, reference, strict=True)]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--example", type=Path, required=True)
    parser.add_argument("--scratch", type=Path, required=True)
    parser.add_argument("--steps", type=int, required=True)
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--groups", type=int, required=True)
    parser.add_argument("--samples", type=int, required=True, help="of a group")
    parser.add_argument("--tokens", type=int, required=True, help="of an answer, at most")
    parser.add_argument("--reward", choices=("exact", "contains"), required=True)
    arguments = parser.parse_args()
    started_s = time.monotonic()
    torch.set_num_threads(arguments.threads)
    settings = GRPOConfig(
        output_dir=str(arguments.scratch),
        use_cpu=True,
        bf16=False,
        per_device_train_batch_size=arguments.groups * arguments.samples,
        gradient_accumulation_steps=1,
        gradient_checkpointing=False,
        num_generations=arguments.samples,
        max_completion_length=arguments.tokens,
        max_steps=arguments.steps,
        temperature=1.0,
        beta=0.0,
        learning_rate=3e-4,
        use_vllm=False,
        logging_steps=1,
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
    )
    times = StepTimes()
    data = load_dataset("json", data_files=str(arguments.example / "data" / "train.jsonl"), split="train")
    trainer = GRPOTrainer(
        model=str(arguments.example / "model"),
        args=settings,
        train_dataset=data,
        reward_funcs={"exact": exact, "contains": contains}[arguments.reward],
        callbacks=[times],
    )
    trainer.train()
    ends = [round(end - started_s, 4) for end in times.ends_s]
    print(json.dumps({"ends_s": ends, "equal_rewards": times.equal_rewards}), flush=True)


if __name__ == "__main__":
    main()
