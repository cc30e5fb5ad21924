"""How much the libraries may say in a service's log: nothing but errors, or what an operator asks to see.

At every start vLLM, torch and transformers warn in dozens of lines of what is as it is meant to be, and draw progress
bars. Most read how much they may say from the environment, when they are imported, so a service is started with it.
"""

import logging
import os
from collections.abc import Mapping

from services.errors import InputError

LEVEL_VARIABLE = "RATCHET_LIBRARY_LOG_LEVEL"
LEVELS = ("ERROR", "WARNING", "INFO", "DEBUG")


def level() -> str:
    """What the operator asked for; errors alone by default. Raises InputError for an unknown level."""
    asked = os.environ.get(LEVEL_VARIABLE, LEVELS[0]).upper()
    if asked not in LEVELS:
        raise InputError(f"{LEVEL_VARIABLE} = {asked} is not a level; give one of {', '.join(LEVELS)}")
    return asked


def environment(given: Mapping[str, str]) -> dict[str, str]:
    """What to add to the environment `given` of a service; what is set there already stays as it is."""
    asked = level()
    wanted = {"VLLM_LOGGING_LEVEL": asked, "TRANSFORMERS_VERBOSITY": asked.lower(), "DATASETS_VERBOSITY": asked.lower()}
    if asked == "ERROR":
        wanted |= {
            "PYTHONWARNINGS": "ignore",
            "TORCH_CPP_LOG_LEVEL": "ERROR",
            "TORCH_LOGS": "-all",  # torch's word for errors alone
            "TQDM_DISABLE": "1",
        }
    return {name: value for name, value in wanted.items() if name not in given}


def apply() -> None:
    """To this process: for what is imported from now on, and for Python's own warnings."""
    os.environ.update(environment(os.environ))
    logging.captureWarnings(True)
    logging.getLogger("py.warnings").setLevel(max(getattr(logging, level()), logging.WARNING))
