"""Datalists, checks, folds, the preprocessing cache, seeded sampling, public data sets."""
