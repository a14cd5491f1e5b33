"""The command line: the composition root of `sparegrid`. It reads arguments, calls the client, and draws.

Everything is imported lazily: `sparegrid --help` loads neither a room nor the network.
"""

from __future__ import annotations


def main() -> None:
    """Run the verb that the arguments of this process name, and exit with its code."""
    import os
    import sys

    from sparegrid.cli.program import run_program

    sys.exit(run_program(sys.argv[1:], os.environ))
