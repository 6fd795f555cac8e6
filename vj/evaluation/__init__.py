"""Measuring detectors: matching, curves, what a cascade rejects and costs."""
