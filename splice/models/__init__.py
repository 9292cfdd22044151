"""Transition models: the registry of those that can run here, and of those that could elsewhere."""

from splice.models.registry import find_model, spec_of

__all__ = ["find_model", "spec_of"]
