"""The coordinator: keeps jobs and places tasks. It never runs tasks."""
