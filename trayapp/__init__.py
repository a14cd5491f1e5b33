"""The Qt program: a client like any other."""
