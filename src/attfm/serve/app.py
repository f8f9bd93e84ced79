"""The service for any ASGI server: `create_app(RUN)`."""

from attfm.serve.http.app import ServiceApp, create_app

__all__ = ["ServiceApp", "create_app"]
