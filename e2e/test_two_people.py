"""Two people use the same server at the same time."""

from __future__ import annotations

from playwright.sync_api import expect

import wire
from conftest import Visit
from pages import QUESTION
from server import Server

TOKENS = 60


def test_each_steers_only_the_own_reply(visit: Visit, server: Server) -> None:
    sampling = wire.Sampling(temperature=0.0, max_tokens=TOKENS)
    alone = wire.ask(server.socket_url, QUESTION, sampling=sampling).text
    pirate = wire.ask(server.socket_url, QUESTION, sampling=sampling, strengths={"pirate": 0.2}).text
    ada, ben = visit(), visit()
    for visitor in (ada, ben):
        visitor.be_greedy(TOKENS)
    ada.steer("pirate", 0.2)

    ben.ask()
    ada.ask()
    ada.wait_while_writing(tokens=3)
    ben.wait_while_writing(tokens=3)

    assert ada.wait_for_reply() == pirate
    assert ben.wait_for_reply() == alone
    assert pirate != alone
    expect(ben.strength("pirate")).to_have_value("0")


def test_a_slider_moved_by_one_leaves_the_other_alone(visit: Visit, server: Server) -> None:
    sampling = wire.Sampling(temperature=0.0, max_tokens=TOKENS)
    alone = wire.ask(server.socket_url, QUESTION, sampling=sampling).text
    ada, ben = visit(), visit()
    for visitor in (ada, ben):
        visitor.be_greedy(TOKENS)

    ben.ask()
    ada.ask()
    ada.wait_while_writing(tokens=3)
    ada.steer("joy", 0.3)
    ada.wait_until_in_force("joy")
    ben.wait_while_writing(tokens=1)

    assert ada.wait_for_reply() != alone
    assert ben.wait_for_reply() == alone
    assert [revision for revision, _ in ada.wait_for_whole_map().revisions] == [1]
    assert ben.wait_for_whole_map().revisions == []
