"""The parts of `gpu.py`: what is measured, and the order and the time in which it is."""
