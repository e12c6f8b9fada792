"""Asking finished models: likelihoods, generation, tasks, scores with intervals; not training."""
