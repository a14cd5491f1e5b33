"""Trust: keys, the coordinator's certificate and its pin, join codes, tokens, saved credentials.

Knows files and bytes; what a role may do is the coordinator's matter.
"""
