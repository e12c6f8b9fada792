"""The one training loop and what it takes; not what stages of alignment make of it."""
