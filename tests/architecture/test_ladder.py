"""The ladder: an app knows only what lies below it, in its imports and in its tables."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from django.apps import apps
from django.db import models

from tests.architecture.source import LADDER, PACKAGES, ROOT, modules

OWN = [model for model in apps.get_models() if model._meta.app_label in LADDER]
FORBIDDEN_NAMES = {"utils", "helpers", "common", "misc", "manager", "handler"}


def test_imports_go_down_only() -> None:
    linter = Path(sys.executable).with_name("lint-imports")

    result = subprocess.run([linter, "--no-cache"], cwd=ROOT, capture_output=True, text=True)

    assert result.returncode == 0, result.stdout


@pytest.mark.parametrize("model", OWN, ids=lambda model: model._meta.label)
def test_foreign_keys_go_down_only(model: type[models.Model]) -> None:
    rung = LADDER.index(model._meta.app_label)
    for field in model._meta.get_fields():
        target = field.related_model if isinstance(field, models.ForeignKey | models.ManyToManyField) else None
        if target is not None and target._meta.app_label in LADDER:
            assert LADDER.index(target._meta.app_label) <= rung, field


def test_the_kernel_points_at_nothing() -> None:
    keys = [field for model in OWN if model._meta.app_label == "kernel" for field in model._meta.get_fields()]
    assert not [field for field in keys if isinstance(field, models.ForeignKey)]


def test_modules_have_names_that_say_something() -> None:
    assert [module.name for module in modules() if module.path.stem in FORBIDDEN_NAMES] == []


def test_every_app_has_a_docstring_that_says_what_it_is() -> None:
    bare = [name for name in PACKAGES if not (apps.get_app_config(name).module.__doc__ or "").strip()]
    assert bare == []
