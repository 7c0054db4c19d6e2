"""Settings and profiles: they survive the journal, and options outrank a profile."""

from __future__ import annotations

import json

import pytest

from conformance.settings import CHECKS, PROFILES, Settings, from_profile


@pytest.mark.parametrize("profile", PROFILES)
def test_settings_survive_json(profile: str) -> None:
    settings = from_profile(profile, engine="torch", order=2)
    assert Settings.from_json(json.loads(json.dumps(settings.to_json()))) == settings


def test_fields_of_a_later_version_are_ignored() -> None:
    assert Settings.from_json({"engine": "torch", "colour": "red"}).engine == "torch"


def test_an_option_outranks_the_profile_and_none_does_not() -> None:
    assert from_profile("smoke", models=("vit",), timeout=None).models == ("vit",)
    assert from_profile("smoke", models=None) == from_profile("smoke")
    assert from_profile("smoke").samples_per_entry == 2


def test_the_second_order_adds_its_check() -> None:
    assert Settings().chosen_checks == CHECKS
    assert set(Settings(order=2).chosen_checks) > set(CHECKS)
    assert Settings(order=2, checks=("vjp",)).chosen_checks == ("vjp",)
