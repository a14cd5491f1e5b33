"""Hand-written fakes that speak the real wire."""
