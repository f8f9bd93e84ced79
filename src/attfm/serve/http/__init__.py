"""The service of a run folder: an ASGI application, its door, its page, and the process that serves it."""
