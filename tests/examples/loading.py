"""An example's make_example.py as a module, under a name of its own."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

EXAMPLES = Path(__file__).parents[2] / "examples"


def load_example(folder: str) -> ModuleType:
    """examples/FOLDER/make_example.py, loaded once."""
    name = f"make_{folder}"
    if name in sys.modules:
        return sys.modules[name]
    specification = importlib.util.spec_from_file_location(name, EXAMPLES / folder / "make_example.py")
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    sys.modules[name] = module  # its dataclass looks itself up there
    specification.loader.exec_module(module)
    return module
