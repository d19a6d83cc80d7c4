"""CPSAM."""
