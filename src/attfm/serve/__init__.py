"""A trained model in production: scoring by lookup, ranking, export, and the service."""
