"""MLflow as a team deploys it: PostgreSQL behind it, artifacts through it.

What a server does when it is killed is in tests/serving/test_registry_server.py, on SQLite.
"""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from data.manifest import read_manifest
from serving.model_folder import MODEL_KIND
from serving.registry import connect, log_run
from serving.versions import download, register_version, resolve

pytestmark = pytest.mark.services
