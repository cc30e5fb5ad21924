"""Whether a program that the settings name can be started here."""

import shutil
from pathlib import Path


def why_not(program: str) -> str:
    """Why it cannot, and what to do; empty: it can."""
    if shutil.which(program) is not None:
        return ""
    if Path(program).is_file():  # `which` looks for what may be executed alone
        return f'"{program}" is not executable: make it so (chmod +x), or name the interpreter before it'
    return f'there is no program "{program}" here: install it, or give its path'
