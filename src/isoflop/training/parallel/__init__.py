"""One run on many processes: layouts, their ranks, and how a model is cut; not for many runs."""
