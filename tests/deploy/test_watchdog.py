"""Services that live and do not work, by a clock of the test's own."""

import pytest

from tasks.deploy.watchdog import AFTER_FULL_S, CHECK_EVERY_S, START_S, STUCK_S, Watchdog


class World:
    """What a watchdog asks, and a run of its checks from one moment to another."""

    def __init__(self):
        self.silent, self.full = set(), False
        self.dog = Watchdog(lambda: set(self.silent), lambda was_full: self.full)

    def run(self, since, until, services=("scheduler", "api-server")):
        """Check every second; gives (moment, service) of the first find, or None."""
        for now in range(int(since), int(until)):
            if found := self.dog.stuck(services, float(now)):
                return now, sorted(found)
        return None


@pytest.fixture
def world():
    world = World()
    for service in ("scheduler", "api-server"):
        world.dog.started(service, 0.0)
    return world


def test_a_service_that_falls_silent_is_found_after_its_patience_and_the_others_are_not(world):
    assert world.run(0, 300) is None
    world.silent = {"scheduler"}
    moment, found = world.run(300, 600)
    assert found == ["scheduler"]
    assert 300 + STUCK_S - CHECK_EVERY_S <= moment <= 300 + STUCK_S + CHECK_EVERY_S


def test_a_service_that_never_comes_up_gets_longer(world):
    world.silent = {"scheduler"}
    moment, found = world.run(0, 600)
    assert (found, START_S <= moment <= START_S + 2 * CHECK_EVERY_S) == (["scheduler"], True)


def test_a_sign_of_life_in_between_is_enough(world):
    world.run(0, 300)
    for start in range(300, 900, 60):
        world.silent = {"scheduler"}
        assert world.run(start, start + 45) is None
        world.silent = set()
        assert world.run(start + 45, start + 60) is None


def test_while_the_disk_is_full_nobody_is_killed_and_after_it_patience_is_short(world):
    everything = ("seaweedfs", "scheduler", "api-server")
    world.run(0, 300)
    world.silent, world.full = {"scheduler", "seaweedfs"}, True
    assert world.run(300, 2000, everything) is None
    world.full = False
    assert world.run(2000, 2001, everything) == (2000, ["seaweedfs"])
    world.silent = {"scheduler"}
    world.dog.started("seaweedfs", 2000)
    moment, found = world.run(2001, 3000, everything)
    assert (found, 2000 + AFTER_FULL_S < moment <= 2000 + AFTER_FULL_S + CHECK_EVERY_S) == (["scheduler"], True)


def test_the_object_store_is_started_again_after_a_full_disk_although_it_answers(world):
    world.full = True
    world.run(0, 100, ("seaweedfs",))
    world.full = False
    assert world.run(100, 101, ("seaweedfs",)) == (100, ["seaweedfs"])
    assert world.run(101, 500, ("seaweedfs",)) is None


def test_nobody_who_works_is_killed_after_a_full_disk(world):
    world.full = True
    world.run(0, 400)
    world.full = False
    assert world.run(400, 1000) is None


def test_a_machine_that_slept_finds_nobody_at_fault(world):
    world.run(0, 300)
    world.silent = {"scheduler", "api-server"}
    assert world.run(50_000, 50_000 + STUCK_S - CHECK_EVERY_S) is None
    assert world.run(50_000 + STUCK_S - CHECK_EVERY_S, 51_000) is not None


def test_a_service_that_does_not_run_is_not_stuck(world):
    world.silent = {"scheduler"}
    assert world.run(0, 1000, services=("api-server",)) is None
    world.dog.started("scheduler", 1000.0)
    assert world.run(1000, 1000 + START_S - 1) is None


def test_services_are_asked_no_more_often_than_needed(world):
    asked = []
    dog = Watchdog(lambda: set(asked.append(1) or ()), lambda was_full: False)
    for tenth in range(1000):
        dog.stuck(("scheduler",), tenth / 10)
    assert len(asked) == 10
