"""Somebody says how a vector acts, not only how much, and passes it on."""

from __future__ import annotations

from playwright.sync_api import expect
from steersight.protocol.messages import VectorSetting

import wire
from conftest import Visit
from pages import QUESTION, SteersightPage
from server import Server

LONG = 400


def test_a_vector_ablated_at_some_layers_for_some_tokens(app: SteersightPage, server: Server) -> None:
    app.be_greedy()
    app.act("joy", operator="ablate", scope="reply", first=8, layers="range", from_=10, to=22)
    app.steer("joy", 1)
    expect(app.how("joy")).to_have_text("Ablate, reply only, first 8 tokens, layers 10\u201322")

    reply = app.answer_to()

    setting = VectorSetting(operator="ablate", scope="reply", first=8, layers=[10, 22])
    assert app.wire.last_start().settings == {"joy": setting}
    assert (
        reply == wire.ask(server.socket_url, QUESTION, strengths={"joy": 1}, settings={"joy": setting}).text
    )


def test_a_clamp_set_while_the_reply_is_written_holds_the_projection(app: SteersightPage) -> None:
    app.be_greedy(LONG)
    app.steer("joy", 0.1)
    app.ask()
    app.wait_while_writing(tokens=4)

    app.act("joy", operator="clamp", hi=0.02)
    app.steer("joy", 1)
    position = app.wait_until_in_force("joy")
    app.wait_while_writing(tokens=position - app.position_of(0) + 8)
    app.stop()

    (layer,) = app.wire.vector_layers("joy")
    after, before = app.wire.values("projection:joy"), app.wire.values("projection_before:joy")
    held = [row for row in after if row >= position]
    assert len(held) >= 4
    assert max(after[row][layer] for row in held) <= 0.021
    # What lay within the bound is left exactly as it was.
    for row in held:
        if before[row][layer] < 0.019:
            assert after[row][layer] == before[row][layer]


def test_a_link_passes_the_sliders_on(app: SteersightPage, visit: Visit) -> None:
    app.act("french", operator="ablate", scope="reply")
    app.steer("french", 1)
    app.steer("joy", -0.12)
    link = app.link()

    friend = visit()
    friend.steer("pirate", 0.2)
    friend.page.goto(link)

    expect(friend.strength("joy")).to_have_value("-0.12")
    expect(friend.strength("french")).to_have_value("1")
    expect(friend.how("french")).to_have_text("Ablate, reply only")
    expect(friend.strength("pirate")).to_have_value("0")
    assert "#" not in friend.page.url


def test_a_link_can_be_the_first_thing_that_is_opened(visit: Visit) -> None:
    def by_link(visitor: SteersightPage) -> None:
        visitor.url += "/#s=joy,0.2;gone,0.5"

    visitor = visit(prepare=by_link)

    expect(visitor.strength("joy")).to_have_value("0.2")
    expect(visitor.linked).to_contain_text("This server has no vector gone")


def test_the_message_box_takes_commands(app: SteersightPage) -> None:
    app.be_greedy(tokens=4)
    assert "joy" in app.command("/features")
    assert app.command("/steer joy 0.2") == "Joy is at 0.2."
    expect(app.strength("joy")).to_have_value("0.2")
    assert app.command("/active").startswith("joy \u00b7 0.2")
    app.answer_to()
    assert [message.content for message in app.wire.last_start().messages] == [QUESTION]

    app.command("/clear")

    expect(app.strength("joy")).to_have_value("0")
