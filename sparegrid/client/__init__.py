"""The one async client of a coordinator: REST, blobs, events. Every program and every user's script goes
through it.

It knows the wire and its faults. It keeps no view of jobs or devices, and decides nothing about them.
"""

from sparegrid.client.client import Client
from sparegrid.client.transfer import OnProgress

__all__ = ["Client", "OnProgress"]
