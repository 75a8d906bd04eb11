"""Programs that a model wrote run here and nowhere else."""

from z1lib.sandbox.host import ExecutionResult, SandboxUnavailable, execute_code, find_isolation

__all__ = ["ExecutionResult", "SandboxUnavailable", "execute_code", "find_isolation"]
