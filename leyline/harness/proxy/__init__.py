"""An HTTP proxy that edits histories on their way to a model server, for harnesses whose code stays as it is."""

from leyline.harness.proxy.access import ProxySettings
from leyline.harness.proxy.app import make_app
from leyline.harness.proxy.store import SqliteStore

__all__ = ["ProxySettings", "SqliteStore", "make_app"]
