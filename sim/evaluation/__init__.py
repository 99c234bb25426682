"""Paired evaluation: episodes as tasks, their statistics, tables and plots."""
