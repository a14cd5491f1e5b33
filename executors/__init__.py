"""The worker: the agent program on a PC that runs tasks, and one executor per kind."""
