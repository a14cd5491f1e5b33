"""Measurements of the product with its defaults (TLS, FULL, child process), each beside a floor of the same run."""
