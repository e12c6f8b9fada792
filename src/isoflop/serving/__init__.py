"""Serving a model: an engine for many requests at once, OpenAI's API, a chat page, safety, feedback."""
