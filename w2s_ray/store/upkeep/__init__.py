"""Upkeep of a store: what is in it, whether it is whole, what can go, and archives of studies.

``python -m w2s_ray.store`` is the command. Nothing here knows what a step computes.
"""
