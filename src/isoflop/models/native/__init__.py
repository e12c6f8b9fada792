"""An optional native library for what a training step does between its large matrix products."""
