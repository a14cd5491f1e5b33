"""The contract of a Sparegrid: words, messages, the client and the Python API.

Everything that two programs of a grid must agree on lives in this package. It imports no other room;
only `sparegrid.cli`, the composition root, reaches into them, lazily.
"""

__version__ = "0.1.0"
