"""Bringing models in: what is wrapped is unwrapped, what can't be traced is refused."""

from relprop.models.prepare import module_names, named_modules, prepare, refuse_training
from relprop.models.program import load_program

__all__ = ["load_program", "module_names", "named_modules", "prepare", "refuse_training"]
