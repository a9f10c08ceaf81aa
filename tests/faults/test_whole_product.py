"""Pulling plugs on the running product: no message lost, none answered twice, no process left."""

import os
import signal

import psutil
import pytest
import redis

from tests.emulators.telegram import Person
from tests.running_product import World, eventually

pytestmark = [pytest.mark.stack, pytest.mark.realcli]


def answered_once(world: World, person: Person, text: str) -> None:
    """The person gets this answer, and gets it once."""
    eventually(lambda: any(text in told for told in world.told(person)))
    assert sum(text in told for told in world.told(person)) == 1


def the(world: World, service: str) -> psutil.Process:
    """The main process of a service."""
    return eventually(lambda: world.product.service(service))[0]


def ready_again(world: World) -> None:
    """Every service is back."""
    eventually(lambda: _ready(world))


def _ready(world: World) -> bool:
    try:
        return world.product.get("/readyz")["status"] == "ready"
    except (OSError, ValueError):
        return False


@pytest.mark.parametrize("signal_number", [signal.SIGKILL, signal.SIGTERM])
def test_a_paid_turn_goes_on_while_its_worker_is_replaced(world: World, signal_number: signal.Signals):
    eva = world.person()
    gate = world.model.hold("long time", "It was worth the wait.", times=1)
    eva.send(world.ada, "Think for a long time")
    gate.wait_arrived()
    (shim, *_) = world.processes_of(eva)
    os.kill(the(world, "worker").pid, signal_number)
    ready_again(world)
    eventually(
        lambda: (
            world.product.sql("SELECT count(*) FROM execution_execution WHERE pid = %s AND epoch = 1", shim.pid)
            == [(1,)]
        )
    )
    gate.release()
    answered_once(world, eva, "It was worth the wait.")
    assert [state for state, _ in world.turns_of(eva)] == ["replied"]


def test_what_nobody_can_go_on_with_leaves_no_process_and_a_told_person(world: World):
    eva = world.person()
    gate = world.model.hold("long time", "Never said.", times=1)
    eva.send(world.ada, "Think for a long time")
    gate.wait_arrived()
    (shim, *below) = world.processes_of(eva)
    os.kill(the(world, "worker").pid, signal.SIGKILL)
    shim.kill()
    _, alive = psutil.wait_procs([shim, *below], timeout=20)
    assert not alive
    eventually(lambda: [state for state, _ in world.turns_of(eva)] == ["interrupted"])
    eventually(lambda: world.told(eva))
    ready_again(world)
    world.model.clear()
    eva.send(world.ada, "Good morning")
    answered_once(world, eva, "Good morning")


def test_a_message_sent_while_no_worker_lives_is_answered_when_one_comes_back(world: World):
    eva = world.person()
    os.kill(the(world, "worker").pid, signal.SIGKILL)
    eva.send(world.ada, "Patience is a virtue")
    answered_once(world, eva, "Patience is a virtue")
    ready_again(world)


def test_a_wiped_redis_loses_no_message(world: World):
    eva = world.person()
    worker = the(world, "worker")
    worker.suspend()
    try:
        said = eva.send(world.ada, "Written before the wipe")
        said.wait_confirmed()
        eventually(lambda: world.turns_of(eva))
        redis.Redis.from_url(world.product.addresses()["REDIS_URL"]).flushall()
    finally:
        worker.resume()
    answered_once(world, eva, "Written before the wipe")


def test_a_frozen_redis_only_slows_things_down(world: World):
    eva = world.person()
    valkey = the(world, "valkey")
    valkey.suspend()
    try:
        eva.send(world.ada, "Redis is asleep")
        answered_once(world, eva, "Redis is asleep")
    finally:
        valkey.resume()
    eva.send(world.ada, "Redis is awake")
    answered_once(world, eva, "Redis is awake")


def test_a_restarted_postgresql_costs_a_pause_and_no_answer(world: World):
    eva = world.person()
    gate = world.model.hold("restart", "Still here.", times=1)
    eva.send(world.ada, "Survive a restart")
    world.model.wait_for_requests(1)
    os.kill(the(world, "postgres").pid, signal.SIGINT)
    gate.release()
    answered_once(world, eva, "Still here.")
    ready_again(world)


def test_a_killed_gateway_takes_up_where_it_was(world: World):
    eva = world.person()
    os.kill(the(world, "gateways").pid, signal.SIGKILL)
    eva.send(world.ada, "Anybody home?")
    answered_once(world, eva, "Anybody home?")


def test_the_same_update_twice_is_answered_once(world: World):
    eva = world.person()
    said = eva.send(world.ada, "Only once")
    answered_once(world, eva, "Only once")
    said.deliver_again()
    said.wait_confirmed()
    eva.send(world.ada, "And then")
    answered_once(world, eva, "And then")
    assert sum("Only once" in told for told in world.told(eva)) == 1
