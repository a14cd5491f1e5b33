"""Data files that ship with the programs: example jobs, pages, icons."""
