"""The Celery app: its settings, and the one task."""

from __future__ import annotations

import os
import threading
from typing import Any

import requests
from celery import Celery, Task
from requests.adapters import HTTPAdapter

ATTEMPTS = 3

celery = Celery("tasks", broker=os.environ["DATABASE_URL"], backend=os.environ["DATABASE_URL"])
celery.conf.update(
    worker_concurrency=100,
    worker_pool="threads",  # callbacks wait for the network
    worker_prefetch_multiplier=1,  # as recommended with acks_late
    task_acks_late=True,  # at least once: a task is acknowledged when it is done
    task_reject_on_worker_lost=True,
    worker_hijack_root_logger=False,
    redis_max_connections=200,  # the client's own limit of 100 is what the threads alone may take
    result_expires=3600,  # s
    broker_connection_retry_on_startup=True,
)
_of_thread = threading.local()


def _session() -> requests.Session:
    """One for each thread: a Session is not made to be shared."""
    if not hasattr(_of_thread, "session"):
        _of_thread.session = requests.Session()
        _of_thread.session.mount("http://", HTTPAdapter(pool_connections=4, pool_maxsize=1))
    return _of_thread.session


@celery.task(
    bind=True,
    name="callback",
    autoretry_for=(requests.RequestException,),
    retry_backoff=True,
    max_retries=ATTEMPTS - 1,
)
def callback(self: Task, task: dict[str, Any]) -> None:
    task_id = self.request.id
    _session().post(
        task["callbackUrl"],
        json={"taskId": task_id, "name": task["name"], "payload": task["payload"]},
        headers={"webhook-id": task_id},
        timeout=30,
    ).raise_for_status()
