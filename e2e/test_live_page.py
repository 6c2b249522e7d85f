"""The promise, through the page: the heatmap grows while the reply is written, and a slider changes it."""

from __future__ import annotations

import re

from playwright.sync_api import Browser, Page, expect

from conftest import ARTIFACTS, LOAD_SECONDS, Served

READY = LOAD_SECONDS * 1000
QUESTION = "Tell me about Paris."


def set_greedy(page: Page, tokens: int) -> None:
    """Temperature 0, so that two replies differ by steering alone."""
    page.get_by_test_id("settings").click()
    page.get_by_test_id("setting-temperature").fill("0")
    page.get_by_test_id("setting-max_tokens").fill(str(tokens))
    page.get_by_test_id("settings").click()


def ask(page: Page, text: str = QUESTION) -> None:
    page.get_by_test_id("prompt-input").fill(text)
    page.get_by_test_id("prompt-input").press("Enter")


def wait_for(page: Page, expression: str, seconds: float = 120) -> None:
    """Wait until a JavaScript expression over `map` (the heatmap's dataset) and `reply` is true."""
    page.wait_for_function(
        f"""() => {{
            const map = document.querySelector('[data-testid=heatmap]')?.dataset ?? {{}};
            const reply = [...document.querySelectorAll('[data-testid=message-assistant]')].at(-1);
            const tokens = reply ? reply.querySelectorAll('.token').length : 0;
            const status = reply?.dataset.status;
            return {expression};
        }}""",
        timeout=seconds * 1000,
    )


def reply_tokens(page: Page) -> list[str]:
    return page.get_by_test_id("message-assistant").last.locator(".token").all_text_contents()


def engine_ready(page: Page) -> None:
    expect(page.get_by_test_id("engine-state")).to_have_attribute("data-state", "ready", timeout=READY)


def test_the_page_shows_the_loading_and_turns_live_by_itself(page: Page, served: Served) -> None:
    print(f"the server answered {served.answered_after:.2f} s after its start")
    state = page.get_by_test_id("engine-state")
    expect(page.get_by_test_id("connection-state")).to_have_attribute("data-state", "live")
    expect(state).to_have_attribute("data-state", re.compile("loading|ready"))
    page.screenshot(path=ARTIFACTS / "loading.png")
    expect(state).to_have_attribute("data-state", "ready", timeout=READY)


def test_columns_appear_while_the_reply_is_written_and_a_slider_changes_it(page: Page) -> None:
    engine_ready(page)
    set_greedy(page, 60)
    ask(page)
    wait_for(page, "status === 'done' && tokens > 20")
    unsteered = reply_tokens(page)
    page.screenshot(path=ARTIFACTS / "unsteered.png")

    page.get_by_test_id("new-chat").click()
    ask(page)
    # Rows are there, and more than the prompt's, while the reply is still being written.
    wait_for(page, "status === 'streaming' && tokens >= 8 && Number(map.columns) >= Number(map.rows) - 2")
    before = int(page.get_by_test_id("heatmap").get_attribute("data-columns") or 0)
    assert before > 8
    wait_for(page, f"status === 'streaming' && Number(map.columns) > {before}")

    slider = page.locator("input[type=range][data-testid^=slider-]").first
    vector = (slider.get_attribute("data-testid") or "").removeprefix("slider-")
    slider.focus()
    slider.press("End")
    expect(page.get_by_test_id(f"slider-status-{vector}")).to_have_text(
        re.compile(r"in force at token \d+", re.IGNORECASE), timeout=30_000
    )
    wait_for(page, "(map.revisions ?? '').includes('@')")
    page.screenshot(path=ARTIFACTS / "steered-while-writing.png")
    wait_for(page, "status === 'done'")
    steered = reply_tokens(page)
    page.screenshot(path=ARTIFACTS / "steered.png")

    heatmap = page.get_by_test_id("heatmap")
    revisions = [entry.split("@") for entry in (heatmap.get_attribute("data-revisions") or "").split(",")]
    position = min(int(at) for rev, at in revisions if rev != "0")
    first = page.get_by_test_id("message-assistant").last.locator(".token").first
    start = int(first.get_attribute("data-position") or 0)
    same = position - start + 1  # the row at `position` is the first that can change the token after it
    assert same > 0, "the change came before the reply"
    assert steered[:same] == unsteered[:same], "tokens from before the change are not what they were"
    assert steered != unsteered, "moving the slider changed nothing"


def test_stop_keeps_what_was_written(page: Page) -> None:
    engine_ready(page)
    set_greedy(page, 400)
    ask(page, "Write a long story about a dragon and a lighthouse.")
    wait_for(page, "status === 'streaming' && tokens >= 5")
    page.get_by_test_id("stop").click()
    wait_for(page, "status === 'done' && tokens >= 5")
    ask(page, "And now say hello.")
    wait_for(page, "status === 'streaming' || status === 'done'")
    expect(page.get_by_test_id("message-user")).to_have_count(2)


def test_hovering_a_token_points_at_its_column_and_back(page: Page) -> None:
    engine_ready(page)
    set_greedy(page, 24)
    ask(page)
    wait_for(page, "status === 'done'")
    token = page.get_by_test_id("message-assistant").last.locator(".token").nth(3)
    token.hover()
    expect(page.get_by_test_id("heatmap-tooltip")).to_be_visible()
    box = page.get_by_test_id("heatmap").bounding_box()
    assert box is not None
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    expect(page.get_by_test_id("heatmap-tooltip")).to_contain_text(re.compile("layer", re.IGNORECASE))
    page.screenshot(path=ARTIFACTS / "hover.png")


def test_dark_and_narrow(browser: Browser, served: Served) -> None:
    for name, width, scheme in (
        ("dark-wide", 1440, "dark"),
        ("dark-narrow", 390, "dark"),
        ("light-narrow", 390, "light"),
    ):
        context = browser.new_context(viewport={"width": width, "height": 860}, color_scheme=scheme)
        page = context.new_page()
        page.goto(served.url)
        engine_ready(page)
        set_greedy(page, 24)
        ask(page)
        wait_for(page, "status === 'done'")
        page.screenshot(path=ARTIFACTS / f"{name}.png", full_page=True)
        overflow = page.evaluate(
            "document.documentElement.scrollWidth - document.documentElement.clientWidth"
        )
        assert overflow <= 0, f"{name}: the page scrolls sideways by {overflow} px"
        context.close()
