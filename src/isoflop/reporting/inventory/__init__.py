"""What lies on disk, where it came from and what can be done with it; draws nothing."""
