"""Two people use the same server at the same time."""

from __future__ import annotations

from playwright.sync_api import expect

import wire
from conftest import Visit
from pages import QUESTION
from server import Server

# Longer than any of these replies is watched, so that they are written at the same time.
LONG = 400


def test_each_steers_only_the_own_reply(visit: Visit, server: Server) -> None:
    ada, ben = visit(), visit()
    for visitor in (ada, ben):
        visitor.be_greedy(LONG)
    ada.steer("pirate", 0.2)

    ben.ask()
    ada.ask()
    for visitor in (ada, ben, ada):
        visitor.wait_while_writing(tokens=24)
    for visitor in (ada, ben):
        visitor.stop()

    adas, bens = ada.wire.reply_ids(), ben.wire.reply_ids()
    assert adas == wire.ask(server.socket_url, QUESTION, tokens=len(adas), strengths={"pirate": 0.2}).ids
    assert bens == wire.ask(server.socket_url, QUESTION, tokens=len(bens)).ids
    assert adas[:24] != bens[:24]
    expect(ben.strength("pirate")).to_have_value("0")


def test_a_slider_moved_by_one_leaves_the_other_alone(visit: Visit, server: Server) -> None:
    ada, ben = visit(), visit()
    for visitor in (ada, ben):
        visitor.be_greedy(LONG)

    ben.ask()
    ada.ask()
    ada.wait_while_writing(tokens=3)
    ada.steer("joy", 0.3)
    position = ada.wait_until_in_force("joy")
    ben.wait_while_writing(tokens=len(ben.reply_tokens()) + 16)
    for visitor in (ada, ben):
        visitor.stop()

    adas, bens = ada.wire.reply_ids(), ben.wire.reply_ids()
    assert adas != wire.ask(server.socket_url, QUESTION, tokens=len(adas)).ids
    assert bens == wire.ask(server.socket_url, QUESTION, tokens=len(bens)).ids
    assert ada.heatmap().revisions == [(1, position)]
    assert ben.heatmap().revisions == []
