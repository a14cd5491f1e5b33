"""The agent: the worker's own process. It talks to the coordinator and never loads a user's code itself."""
