"""The models as modules of torch, their accounting, and their files; not how they are trained."""
