"""What `sparegrid demo` sends to its devices."""
