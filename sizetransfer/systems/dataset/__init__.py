"""Samples in files: a teacher that knows its fields and nothing else."""
