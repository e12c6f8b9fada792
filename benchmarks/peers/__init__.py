"""Other programs' models, for comparison; not part of Isoflop."""
