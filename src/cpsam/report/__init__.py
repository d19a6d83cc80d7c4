"""Results in, pages out; no torch."""
