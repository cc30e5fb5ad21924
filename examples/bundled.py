"""What the bundled examples share: their rows, a tokenizer of whole words, and a model that is made once."""

import json
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

PAD, EOS = 0, 1
FIRST = 2
"""Number of the first token after padding and end of sequence."""


def write_rows(folder: Path, rows: Mapping[str, Iterable[Mapping[str, Any]]]) -> None:
    """Write NAME.jsonl for each name."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, of_name in rows.items():
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in of_name), encoding="utf-8")


def make_tokenizer(tokens: Sequence[str], pieces: str) -> Any:
    """A tokenizer of these tokens, numbered from FIRST. pieces: a regular expression; text is split into its matches."""
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    vocabulary = {"<pad>": PAD, "<eos>": EOS, **{token: i + FIRST for i, token in enumerate(tokens)}}
    vocabulary["<unk>"] = len(vocabulary)
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(pieces), behavior="isolated")
    tokenizer.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        eos_token="<eos>",
        unk_token="<unk>",
        clean_up_tokenization_spaces=False,
        model_input_names=["input_ids", "attention_mask"],
    )


def make(
    out: Path,
    recipe: Mapping[str, Any],
    digest: str,
    *,
    write_data: Callable[[Path], None],
    train: Callable[[], tuple[Any, dict[str, Any]]],
    tokenizer: Callable[[], Any],
    takes: str,
    learned: str,
    files: Sequence[str] = ("train", "heldout"),
) -> bool:
    """Make what is missing under `out`. Returns False if everything was there already.

    digest: of all that decides what is made; a model of another one is trained again. train: returns the model and what was
    measured. takes: how long it takes, for the user. learned: a format string over what was measured. files: names
    that write_data writes.
    """
    made = out / "model" / "made.json"
    if not all((out / "data" / f"{name}.jsonl").is_file() for name in files):
        write_data(out / "data")
    if (out / "model" / "model.safetensors").is_file() and made.is_file():
        if json.loads(made.read_text(encoding="utf-8"))["recipe"] == digest:
            return False
        made.unlink()
    began_s = time.monotonic()
    print(f"example: training the starting model in {out} ({takes}, once)", flush=True)
    model, facts = train()
    model.save_pretrained(out / "model", safe_serialization=True)
    tokenizer().save_pretrained(out / "model")
    made.write_text(json.dumps({"recipe": digest, **recipe, **facts}, indent=1) + "\n", encoding="utf-8")
    print(
        f"example: ready in {time.monotonic() - began_s:.0f} s: {facts['supervised_steps']} steps, "
        f"{learned.format(**facts)}",
        flush=True,
    )
    return True
