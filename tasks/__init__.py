"""Thin Prefect tasks around the core: keys, records, progress."""
