"""Somebody types, key by key: `fill` puts a whole text at once and hides what a field does in between."""

from __future__ import annotations

import pytest
from playwright.sync_api import Locator, expect

from pages import SteersightPage


def type_anew(field: Locator, keys: str) -> None:
    """Select what stands in a field and type something else."""
    field.click()
    field.press("ControlOrMeta+a")
    for key in keys:
        field.press(key)


@pytest.mark.parametrize(("keys", "strength"), [("-0.2", "-0.2"), (".25", "0.25"), ("-.05", "-0.05")])
def test_a_strength(app: SteersightPage, keys: str, strength: str) -> None:
    type_anew(app.strength("joy"), keys)

    expect(app.slider("joy")).to_have_value(strength)
    app.strength("joy").press("Enter")
    expect(app.strength("joy")).to_have_value(strength)


def test_a_strength_that_is_begun_and_left_is_what_it_was(app: SteersightPage) -> None:
    app.steer("joy", 0.2)
    type_anew(app.strength("joy"), "-")
    app.prompt.focus()

    expect(app.strength("joy")).to_have_value("0.2")
    expect(app.slider("joy")).to_have_value("0.2")


def test_bounds(app: SteersightPage) -> None:
    app.how("joy").click()
    app.page.get_by_test_id("operator-joy").select_option("clamp")
    lo, hi = app.page.get_by_test_id("lo-joy"), app.page.get_by_test_id("hi-joy")
    type_anew(hi, "-0.1")
    type_anew(lo, "-")
    # Not a number yet, which is not the same as no bound.
    expect(app.page.get_by_test_id("how-about-joy")).to_have_text("A bound must be a number.")
    expect(app.how("joy")).to_have_text("Clamp, at most -0.1")
    lo.press("1")

    expect(app.how("joy")).to_have_text("Clamp, -1 to -0.1")


def test_settings(app: SteersightPage) -> None:
    app.page.get_by_test_id("settings").click()
    temperature = app.page.get_by_test_id("setting-temperature")
    type_anew(temperature, "1.25")
    seed = app.page.get_by_test_id("setting-seed")
    type_anew(seed, "-")

    expect(temperature).to_have_value("1.25")
    panel = app.page.get_by_test_id("settings-panel")
    expect(panel).to_contain_text("This is not a number.")
    seed.press("1")
    expect(panel).to_contain_text("It must be at least 0.")
    type_anew(seed, "7")
    app.answer_to("Hi")
    sampling = app.wire.last_start().sampling
    assert (sampling.temperature, sampling.seed) == (1.25, 7)
