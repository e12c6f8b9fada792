"""Smaller models from trained ones: fewer bits, fewer weights, a student; and other formats."""
