"""The page in both themes, on wide and narrow screens, for eyes, screen readers and the keyboard alone."""

from __future__ import annotations

from itertools import product
from pathlib import Path

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import expect

from conftest import Visit
from pages import QUESTION, SteersightPage

WCAG = {"runOnly": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa"], "resultTypes": ["violations"]}
SCHEMES = ("light", "dark")


@pytest.fixture
def pictures(pytestconfig: pytest.Config) -> Path:
    """Where pictures of the page go, for people to look at."""
    folder = Path(pytestconfig.getoption("--output")) / "looks"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def readable(visitor: SteersightPage, what: str) -> None:
    """Nothing of the page as it stands is cut off at the side, and everybody can read it."""
    assert visitor.sideways_overflow() <= 0, what
    findings = Axe().run(visitor.page, options=WCAG)
    assert findings.violations_count == 0, f"{what}: {findings.generate_report()}"


@pytest.mark.parametrize(("scheme", "width"), [("light", 1280), ("dark", 390)])
def test_whoever_arrives_can_read_it(visit: Visit, scheme: str, width: int) -> None:
    visitor = visit(width=width, scheme=scheme)
    expect(visitor.page.locator("html")).to_have_attribute("data-theme", scheme)
    readable(visitor, "on arrival")


def test_nothing_overflows_and_everybody_can_read_it(app: SteersightPage, pictures: Path) -> None:
    for scheme, width in product(SCHEMES, (1280, 390)):
        app.look(scheme, width)
        app.page.screenshot(path=pictures / f"{scheme}-{width}-empty.png", full_page=True)
    app.be_greedy()
    app.steer("joy", 0.15)
    app.answer_to()

    for scheme, width in product(SCHEMES, (1280, 390)):
        app.look(scheme, width)
        app.wait_for_whole_map()
        app.page.screenshot(path=pictures / f"{scheme}-{width}.png", full_page=True)
        readable(app, f"{scheme}, {width}")


def test_open_settings_are_readable_too(app: SteersightPage) -> None:
    app.page.get_by_test_id("settings").click()
    app.page.get_by_test_id("setting-temperature").fill("9")

    for scheme in SCHEMES:
        app.look(scheme, 390)
        readable(app, scheme)


def test_dialogs_and_open_choices_are_readable_too(app: SteersightPage, pictures: Path) -> None:
    app.how("joy").click()
    app.page.get_by_test_id("operator-joy").select_option("clamp")
    app.page.get_by_test_id("layers-joy").select_option("range")
    open_next = {
        "how": lambda: None,
        "card": lambda: app.open_card("joy"),
        "new-slider": app.new_slider_button.click,
        "import": app.import_button.click,
    }
    for name, show in open_next.items():
        show()
        for scheme, width in product(SCHEMES, (1280, 360)):
            app.look(scheme, width)
            app.page.screenshot(path=pictures / f"{scheme}-{width}-{name}.png", full_page=True)
            readable(app, f"{name}: {scheme}, {width}")
        app.page.keyboard.press("Escape")


def test_a_dialog_keeps_the_keyboard_and_gives_it_back(app: SteersightPage) -> None:
    app.new_slider_button.focus()
    app.page.keyboard.press("Enter")
    expect(app.new_slider_dialog).to_be_visible()
    app.page.keyboard.type("Calm")
    for _ in range(12):
        app.page.keyboard.press("Tab")
        # The browser's own frame may have it in between; what lies under the dialog must not.
        assert app.focused() in {
            "", "new-slider-dialog-close", "new-slider-name", "new-slider-prompts", "new-slider-examples",
            "new-slider-more", "new-slider-less", "new-slider-go",
        }  # fmt: skip

    app.page.keyboard.press("Escape")

    expect(app.new_slider_dialog).to_have_count(0)
    assert app.focused() == "new-slider"


def test_the_theme_can_be_switched_and_stays(app: SteersightPage) -> None:
    root = app.page.locator("html")
    expect(root).to_have_attribute("data-theme", "light")

    app.theme_toggle.click()
    expect(root).to_have_attribute("data-theme", "dark")

    app.page.reload()
    expect(root).to_have_attribute("data-theme", "dark")


def test_the_map_stays_sharp_on_every_screen_it_is_moved_to(visit: Visit) -> None:
    # On a narrow page the map keeps its size when the window's height changes: nothing but the density tells.
    app = visit(width=390, ready=False)
    screen = app.page.context.new_cdp_session(app.page)
    for height, ratio in enumerate((2, 1.5, 1.25, 1), start=901):
        metrics = {"width": 390, "height": height, "deviceScaleFactor": ratio, "mobile": False}
        screen.send("Emulation.setDeviceMetricsOverride", metrics)
        app.page.wait_for_function(
            """ratio => {
                const canvas = document.querySelector('[data-testid=heatmap] canvas');
                const box = canvas.closest('.heatmap-scroller');
                return devicePixelRatio === ratio && canvas.width === Math.round(box.clientWidth * ratio);
            }""",
            arg=ratio,
        )


def test_the_keyboard_alone_is_enough(app: SteersightPage) -> None:
    app.be_greedy(tokens=300)
    keyboard = app.page.keyboard

    app.tab_to("prompt-input")
    keyboard.type(QUESTION)
    app.tab_to("send")
    keyboard.press("Enter")
    app.wait_while_writing(tokens=2)
    app.tab_to("slider-joy")
    keyboard.press("End")
    app.wait_until_in_force("joy")
    keyboard.press("Escape")

    app.wait_for_reply()
    expect(app.ending).to_have_text("Stopped")


def test_the_stop_button_can_be_reached_with_tab(app: SteersightPage) -> None:
    app.be_greedy(tokens=300)
    app.tab_to("prompt-input")
    app.page.keyboard.type("Write a long story about a dragon.")
    app.page.keyboard.press("Enter")
    app.wait_while_writing(tokens=2)

    app.tab_to("stop")
    app.page.keyboard.press("Enter")

    app.wait_for_reply()
    expect(app.ending).to_have_text("Stopped")
