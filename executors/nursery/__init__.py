"""The nursery: the process that starts a job's tasks on a device, and everything that runs below it."""
