"""The Celery app, made once Django's settings are known. Job modules are called `jobs.py`, because one app is called tasks."""

import warnings

from celery import Celery
from celery.exceptions import SecurityWarning

# Celery warns root because of pickle; here only JSON is accepted, and what a message says is checked against PostgreSQL.
warnings.filterwarnings("ignore", category=SecurityWarning)

app = Celery("fleet")
app.config_from_object("django.conf:settings", namespace="CELERY")
app.autodiscover_tasks(related_name="jobs")
