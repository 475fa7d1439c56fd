"""Coefficients of published methods: numbers and their sources, nothing else."""
