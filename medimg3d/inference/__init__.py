"""Inferers in MONAI's sense."""
