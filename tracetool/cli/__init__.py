"""The command line: one file a verb. Libraries are imported inside the verbs, so that `--help` answers at once."""

from tracetool.cli.app import main

__all__ = ["main"]
