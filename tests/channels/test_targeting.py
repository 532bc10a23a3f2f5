"""docs/architecture.md#targeting: the members; only those in `to` or `users`, if given; minus `exclude`."""

import pytest

from ..lib.support import Named


@pytest.fixture
async def site(serve):
    return await serve(Named())


class Crowd:
    """ann on two devices, bob and eve (who has no user name) are in `cars`, dan is in `bikes`."""

    def __init__(self, manager):
        self.manager = manager
        self.clients = {}
        self.ids = {}

    async def reached(self):
        """Who has received something since the last call, at most once each."""
        got = {name: await client.received() for name, client in self.clients.items()}
        assert all(len(messages) <= 1 for messages in got.values()), got
        return {name for name, messages in got.items() if messages}

    def socket(self, name):
        return self.manager.connections[self.ids[name]]


@pytest.fixture
async def crowd(site, join):
    crowd = Crowd(site.manager)
    for name, path in {
        "ann1": "cars?user=ann",
        "ann2": "cars?user=ann",
        "bob": "cars?user=bob",
        "eve": "cars",
        "dan": "bikes?user=dan",
    }.items():
        known = set(site.manager.connections)
        crowd.clients[name] = await join(f"{site.url}/ws/{path}")
        await crowd.clients[name].ping()
        (crowd.ids[name],) = set(site.manager.connections) - known
    return crowd


EVERYONE = {"ann1", "ann2", "bob", "eve"}

# name: (keyword arguments, who is reached). $name stands for that connection's id, @name for the connection.
CASES = {
    "nothing said": ({}, EVERYONE),
    "to two ids": ({"to": ["$ann1", "$bob"]}, {"ann1", "bob"}),
    "to a single id": ({"to": "$bob"}, {"bob"}),
    "to a tuple": ({"to": ("$bob", "$eve")}, {"bob", "eve"}),
    "to a set": ({"to": {"$bob", "$eve"}}, {"bob", "eve"}),
    "to one id twice": ({"to": ["$bob", "$bob"]}, {"bob"}),
    "to a connection": ({"to": "@bob"}, {"bob"}),
    "to ids and connections": ({"to": ["@bob", "$eve"]}, {"bob", "eve"}),
    "to an id and its connection": ({"to": ["@bob", "$bob"]}, {"bob"}),
    "to an empty list": ({"to": []}, set()),
    "to one outside the channel": ({"to": ["$dan", "$bob"]}, {"bob"}),
    "to an id that is gone": ({"to": ["gone", "$bob"]}, {"bob"}),
    "to nobody but the gone": ({"to": ["gone"]}, set()),
    "a user": ({"users": ["ann"]}, {"ann1", "ann2"}),
    "a single user": ({"users": "ann"}, {"ann1", "ann2"}),
    "two users": ({"users": {"ann", "bob"}}, {"ann1", "ann2", "bob"}),
    "an unknown user": ({"users": ["zoe"]}, set()),
    "a user outside the channel": ({"users": ["dan", "bob"]}, {"bob"}),
    "no users": ({"users": []}, set()),
    "either, not both": ({"to": ["$eve"], "users": ["bob"]}, {"eve", "bob"}),
    "named in both": ({"to": ["$bob"], "users": ["bob"]}, {"bob"}),
    "nobody or a user": ({"to": [], "users": ["bob"]}, {"bob"}),
    "nobody or nobody": ({"to": [], "users": []}, set()),
    "all but an id": ({"exclude": "$bob"}, {"ann1", "ann2", "eve"}),
    "all but a connection": ({"exclude": "@bob"}, {"ann1", "ann2", "eve"}),
    "all but several": ({"exclude": ["@bob", "$ann1"]}, {"ann2", "eve"}),
    "all but one outside": ({"exclude": "$dan"}, EVERYONE),
    "all but the gone": ({"exclude": ["gone"]}, EVERYONE),
    "all but nobody": ({"exclude": []}, EVERYONE),
    "all but everybody": ({"exclude": ["$ann1", "$ann2", "$bob", "$eve"]}, set()),
    "a user's other devices": ({"users": "ann", "exclude": "@ann1"}, {"ann2"}),
    "named and excluded": ({"to": ["$bob", "$eve"], "exclude": "$bob"}, {"eve"}),
    "a generator": ({"to": "generator"}, {"ann1", "bob"}),
}


def resolve(crowd, value):
    if value == "generator":
        return (crowd.ids[name] for name in ("ann1", "bob"))
    if isinstance(value, str):
        if value.startswith("$"):
            return crowd.ids[value[1:]]
        return crowd.socket(value[1:]) if value.startswith("@") else value
    return type(value)(resolve(crowd, item) for item in value)


@pytest.mark.parametrize("case", CASES)
async def test_a_broadcast_reaches_whom_it_names_and_nobody_else(crowd, case):
    arguments, reached = CASES[case]
    arguments = {name: resolve(crowd, value) for name, value in arguments.items()}
    assert crowd.manager.broadcast("cars", case, **arguments) == len(reached)
    assert await crowd.reached() == reached


@pytest.mark.parametrize(
    ("ids", "reached"),
    [
        ("$bob", {"bob"}),
        ("@bob", {"bob"}),
        (["$bob", "$dan"], {"bob", "dan"}),
        (["$bob", "@bob", "$bob"], {"bob"}),
        ([], set()),
        (["gone"], set()),
        (["gone", "$bob"], {"bob"}),
    ],
)
async def test_send_goes_to_connections_in_whatever_channel(crowd, ids, reached):
    assert crowd.manager.send(resolve(crowd, ids), "x") == len(reached)
    assert await crowd.reached() == reached


@pytest.mark.parametrize(
    ("users", "exclude", "reached"),
    [
        ("ann", None, {"ann1", "ann2"}),
        (["ann", "dan"], None, {"ann1", "ann2", "dan"}),
        (["ann", "ann"], None, {"ann1", "ann2"}),
        ("ann", "@ann1", {"ann2"}),
        ("ann", "$ann1", {"ann2"}),
        (["ann", "bob"], ["$bob", "@ann1"], {"ann2"}),
        ("zoe", None, set()),
        ([], None, set()),
    ],
)
async def test_send_to_user_goes_to_all_their_devices(crowd, users, exclude, reached):
    exclude = exclude if exclude is None else resolve(crowd, exclude)
    assert crowd.manager.send_to_user(users, "x", exclude=exclude) == len(reached)
    assert await crowd.reached() == reached


async def test_the_arguments_that_choose_are_keywords_only(crowd):
    with pytest.raises(TypeError):
        crowd.manager.broadcast("cars", "x", ["gone"])
    with pytest.raises(TypeError):
        crowd.manager.send_to_user("ann", "x", ["gone"])
    assert await crowd.reached() == set()


@pytest.mark.parametrize("nonsense", [7, 1.5, object()])
async def test_what_names_no_connection_is_a_type_error(crowd, nonsense):
    for attempt in (
        lambda: crowd.manager.send(nonsense, "x"),
        lambda: crowd.manager.broadcast("cars", "x", to=[nonsense]),
        lambda: crowd.manager.broadcast("cars", "x", exclude=nonsense),
    ):
        with pytest.raises(TypeError):
            attempt()
    assert await crowd.reached() == set()


@pytest.mark.parametrize(
    "stranger",
    ["", "-", "--", "0-0", "{}-0", "{}x", "-{}", "{}-", " {}", "{}\0", "é", "\ud800", "x" * 10_000, "{}" + "0" * 40],
)
async def test_a_string_that_is_no_id_is_nobody(crowd, stranger):
    stranger = stranger.replace("{}", crowd.ids["bob"])
    assert stranger not in crowd.manager.connections
    assert crowd.manager.send(stranger, "x") == 0
    assert crowd.manager.broadcast("cars", "x", to=stranger) == 0
    assert crowd.manager.broadcast("cars", "x", exclude=stranger) == 4
    assert await crowd.reached() == EVERYONE


async def test_an_id_that_is_used_up_is_never_given_again(crowd, site, join):
    stale = crowd.ids["bob"]
    await crowd.clients.pop("bob").close()
    await crowd.clients["ann1"].ping()
    for _ in range(10):
        await (await join(f"{site.url}/ws/cars?user=bob")).ping()
    assert stale not in site.manager.connections
    assert site.manager.send(stale, "x") == 0
    assert site.manager.broadcast("cars", "x", to=stale) == 0
    assert await crowd.reached() == set()


async def test_a_connection_object_that_is_closed_is_nobody(crowd, site):
    bob = crowd.socket("bob")
    await crowd.clients.pop("bob").close()
    await crowd.clients["ann1"].ping()
    assert site.manager.send(bob, "x") == 0
    assert site.manager.broadcast("cars", "x", to=[bob]) == 0
    assert site.manager.broadcast("cars", "x", exclude=bob) == 3
    assert await crowd.reached() == {"ann1", "ann2", "eve"}


async def test_targets_are_chosen_anew_each_time(crowd):
    for name in ("bob", "eve", "bob"):
        assert crowd.manager.broadcast("cars", "x", to=crowd.ids[name]) == 1
        assert await crowd.reached() == {name}
    assert crowd.manager.broadcast("cars", "x") == 4
    assert await crowd.reached() == EVERYONE
