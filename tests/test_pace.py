"""All clients of a key together keep to a number of requests per second."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from autopilothq.clients.pace import Pace, pace_of
from fake_autopilot import FakeAutopilot
from requesting import Time, api, client
from waiting import timed


def most_in_a_second(times: list[float]) -> int:
    return max(sum(1 for other in times if start <= other < start + 1) for start in times)


@timed
def test_one_budget_for_all_threads_and_clients_of_a_key() -> None:
    with FakeAutopilot(contacts=1) as server, ThreadPoolExecutor(16) as pool:
        clients = [client(api(server.base_url + end, requests_per_second=50)) for end in ("", "/")]
        list(pool.map(lambda number: clients[number % 2].request("GET", ["account"]), range(125)))
        for one in clients:
            one.close()
        times = sorted(request.at for request in server.requests)
    assert most_in_a_second(times) <= 50
    assert 2 <= times[-1] - times[0] < 5  # 125 at 50/s: 50 at once, 50 a second later, then the rest


@timed
def test_a_slow_server_does_not_cost_pace() -> None:
    with FakeAutopilot(contacts=1, latency=0.1) as server, ThreadPoolExecutor(20) as pool:
        with client(api(server.base_url, requests_per_second=50)) as http:
            list(pool.map(lambda _: http.request("GET", ["account"]), range(125)))
        times = sorted(request.at for request in server.requests)
    assert most_in_a_second(times) <= 50
    assert times[-1] - times[0] < 8  # 2 s if the machine is idle; 12.5 s one after the other


def test_other_keys_and_servers_have_budgets_of_their_own() -> None:
    paces = {pace_of(origin, key) for origin in "ab" for key in "cd"}
    assert len(paces) == 4


def test_places_are_free_a_second_after_they_were_used(time: Time) -> None:
    pace = Pace(time.clock, time.sleep)
    gone = []
    for _ in range(11):
        place = pace.wait(5)
        place.trace("http11.send_request_headers.started", {})
        place.answered()
        place.done()
        gone.append(round(time.now - 100, 3))
    assert gone == [0] * 5 + [1.005] * 5 + [2.01]


@pytest.mark.parametrize(("rate", "gone"), [(2.5, [0, 0, 1.005, 1.005]), (0.5, [0, 2.005, 4.01, 6.015])])
def test_rates_that_are_not_whole(time: Time, rate: float, gone: list[float]) -> None:
    pace = Pace(time.clock, time.sleep)
    times = []
    for _ in range(4):
        pace.wait(rate).done()
        times.append(round(time.now - 100, 3))
    assert times == gone


def test_the_slower_of_two_clients_counts_the_others_requests(time: Time) -> None:
    pace = Pace(time.clock, time.sleep)
    for _ in range(5):
        pace.wait(20).done()
    pace.wait(5).done()
    assert time.now == pytest.approx(101.005)


def test_a_request_that_waits_for_its_connection_counts_from_when_it_went_out() -> None:
    pace = Pace()
    place = pace.wait(1)
    connecting = threading.Timer(0.2, place.trace, ["http11.send_request_headers.started", {}])
    started = pace.now()
    connecting.start()
    pace.wait(1)
    assert pace.now() - started > 1.2
    connecting.join()


def test_a_slower_answer_may_mean_that_the_request_arrived_late(time: Time) -> None:
    pace = Pace(time.clock, time.sleep)
    gone = []
    for latency in (0.1, 0.13, 0.9, 0.1):
        place = pace.wait(1)
        place.trace("http11.send_request_headers.started", {})
        gone.append(round(time.now - 100, 3))
        time.now += latency
        place.answered()
        place.done()
    assert gone == [0, 1.005, 2.04, 3.095]


def test_a_request_without_an_answer_may_arrive_late(time: Time) -> None:
    pace = Pace(time.clock, time.sleep)
    for sent in (0, 1.055, 2.11):  # the first one, when no answer has come yet, and later ones
        slot = pace.wait(1)
        assert round(time.now - 100, 3) == sent
        slot.trace("http11.send_request_headers.started", {})
