"""The kill switch on the running product: processes gone, proof written, nothing new until it is lifted."""

import re

import pytest

from tests.running_product import World, eventually

pytestmark = [pytest.mark.stack, pytest.mark.realcli]


def test_stop_kills_live_clis_proves_it_and_holds_until_it_is_lifted(world: World):
    bystander, *people = (world.person() for _ in range(4))
    bystander.wait_for_reply(bystander.send(world.ada, "Hello"))
    idle = world.processes_of(bystander)  # it stays for the next message
    assert idle
    world.model.silence("", 120)
    for person in people:
        person.send(world.ada, "Think for a long time")
    # With the greeting. A turn that has not begun would take in what is to wait for it.
    world.model.wait_for_requests(1 + len(people))
    waiting = people[0].send(world.ada, "And this waits")
    eventually(lambda: len(world.turns_of(people[0])) == 2)

    receipt = world.product.manage("stop", "--reason", "drill", "--wait", "60")
    try:
        assert "everything is quiet" in receipt
        assert len(re.findall(r"ms: process \d+ ", receipt)) == len(people)
        assert receipt.count("queue") >= 1 and "channel telegram:ada" in receipt
        assert not any(world.processes_of(person) for person in people)
        assert len(re.findall(rf"ms: process idle:\S+:{idle[0].pid} ", receipt)) == 1
        assert not any(process.is_running() for process in idle)
        assert "drill" in people[0].wait_for_reply(waiting, contains="drill").text

        world.model.clear()
        refused = people[1].send(world.ada, "Are you there?")
        assert "drill" in people[1].wait_for_reply(refused, contains="drill").text
        assert world.model.requests == []
    finally:
        world.product.manage("resume", "--reason", "drill is over")
    again = people[1].send(world.ada, "Good morning")
    assert "Good morning" in people[1].wait_for_reply(again, contains="Good morning").text
