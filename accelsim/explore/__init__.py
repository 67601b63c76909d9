"""Exploration: how wide the registers must be, and what a choice costs."""
