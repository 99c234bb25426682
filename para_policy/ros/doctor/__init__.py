"""Checks of an installation, of its files and of a running graph: `para-policy doctor`."""
