"""Summaries of the store's results: tables now, figures and pages later. No torch, no ray."""
