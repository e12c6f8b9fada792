"""What was done, as one HTML page and as lists; it computes no result of its own."""
