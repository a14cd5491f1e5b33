"""What fakes promise, checked against the fake and the real thing alike."""
