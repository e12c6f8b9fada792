"""Programs nobody has read, run in a process that can do no harm: models' code above all."""

from isoflop.core.sandbox.run import Limits, Ran, protections, run_program, run_programs

__all__ = ["Limits", "Ran", "protections", "run_program", "run_programs"]
