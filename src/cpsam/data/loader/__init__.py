"""Reads streamed images in processes of their own."""
