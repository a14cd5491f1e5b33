"""Executor `python`: calls an importable function in a warm child."""

from executors.python.executor import PythonExecutor

__all__ = ["PythonExecutor"]
