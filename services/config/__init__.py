"""Settings of a run: TOML in, frozen objects out. Importing this pulls no torch."""

from services.config.run import RunConfig

__all__ = ["RunConfig"]
