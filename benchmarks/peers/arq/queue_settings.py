"""What the API and the worker share."""

from __future__ import annotations

import os

from arq.connections import RedisSettings

REDIS = RedisSettings.from_dsn(os.environ["DATABASE_URL"])
