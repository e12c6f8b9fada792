"""Serving a model: an engine for many requests, OpenAI's API, a page, safety, feedback."""
