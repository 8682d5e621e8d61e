"""Prompts whose answers a rule can check: rule families, splits, and the check itself."""
