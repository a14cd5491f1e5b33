"""`python -m sparegrid.cli`: the same as the `sparegrid` program, for children started with one interpreter."""

from sparegrid.cli import main

main()
