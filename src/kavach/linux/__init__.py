"""Kernel words only: system calls and constants; raises OSError and imports nothing of the rest of Kavach."""
