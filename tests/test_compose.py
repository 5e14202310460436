"""The composition keeps its promises: nothing runs as root, only the API has a door, workers are chosen by profile."""

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parent.parent
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
SERVICES: dict[str, Any] = COMPOSE["services"]
DOCKERFILE = (ROOT / "Dockerfile").read_text()


def stage(name: str) -> str:
    """The lines of one stage of the Dockerfile."""
    (text,) = re.findall(rf"^FROM \S+ AS {name}\n(.*?)(?=^FROM |\Z)", DOCKERFILE, re.MULTILINE | re.DOTALL)
    return str(text)


@pytest.mark.parametrize("name", SERVICES)
def test_no_service_has_more_rights_than_it_needs(name: str) -> None:
    service = SERVICES[name]
    assert service["read_only"]
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", service["user"])
    assert "container_name" not in service


def test_only_the_api_is_published_and_on_this_machine() -> None:
    assert {name for name, service in SERVICES.items() if "ports" in service} == {"api"}
    assert SERVICES["api"]["ports"] == ["${PUBLISH:-127.0.0.1:8000}:8000"]
    assert COMPOSE["networks"]["state"]["internal"]
    assert SERVICES["valkey"]["networks"] == ["state"]


def test_the_key_reaches_the_api_alone() -> None:
    keys = {name: service.get("environment", {}).get("FOVEATE_API_KEY") for name, service in SERVICES.items()}
    assert keys.pop("api").startswith("${FOVEATE_API_KEY:?")
    assert keys == {"valkey": None, "worker-cpu": "", "worker-gpu": ""}


def test_one_worker_a_profile() -> None:
    assert {name: service.get("profiles") for name, service in SERVICES.items() if "profiles" in service} == {
        "worker-cpu": ["cpu"],
        "worker-gpu": ["gpu"],
    }
    (device,) = SERVICES["worker-gpu"]["deploy"]["resources"]["reservations"]["devices"]
    assert device["driver"] == "nvidia"
    assert "deploy" not in SERVICES["worker-cpu"]


@pytest.mark.parametrize("target", ["service", "worker"])
def test_images_run_without_root(target: str) -> None:
    assert "\nUSER 10001:10001\n" in stage(target)
    assert "\nHEALTHCHECK " in stage(target)


def test_service_image_has_no_torch() -> None:
    command = [sys.executable, "deploy/group.py", "service"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert "fastapi" in listed
    assert "torch" not in listed
    assert not re.findall(r"^COPY (?:model|worker)/", stage("service"), re.MULTILINE)
    assert {"model", "worker"} == set(re.findall(r"^COPY (model|worker)/", stage("worker"), re.MULTILINE))
