"""Messages between nodes: at most once, in order, to whoever listens."""

from fastws.backplane.base import NodeKey, Subject, UserName

from ..lib.support import eventually
from .peers import CARS

ALL = Subject("all", "", "")
HOSTILE = ["", " ", "a b\nc", "{x}", "*", "ä€😀", "a.b>c", "\0", "$x", "#1", "x" * 200]


async def test_messages_come_in_the_order_of_their_sender(backplanes):
    a, b, c = [await backplanes.node(name) for name in "abc"]
    received = await b.listen(CARS)
    for number in range(300):
        a.backplane.send(CARS, b"a%d" % number)
        c.backplane.send(CARS, b"c%d" % number)
    await eventually(lambda: len(received) == 600)
    for sender in (b"a", b"c"):
        assert [p for p in received if p.startswith(sender)] == [b"%s%d" % (sender, n) for n in range(300)]


async def test_whatever_is_sent_after_listen_returned_comes(backplanes):
    a, b = await backplanes.node("a"), await backplanes.node("b")
    for number in range(20):
        subject = Subject("channel", "/ws", f"room{number}")
        received = await b.listen(subject)
        a.backplane.send(subject, b"hi")
        await eventually(lambda received=received: received == [b"hi"])


async def test_a_payload_may_be_any_bytes(backplanes):
    a, b = await backplanes.node("a"), await backplanes.node("b")
    received = await b.listen(CARS)
    payloads = [b"", b"\r\n", bytes(range(256)), b"$3\r\nabc\r\n", b"x" * 300_000]
    for payload in payloads:
        a.backplane.send(CARS, payload)
    await eventually(lambda: len(received) == len(payloads))
    assert received == payloads
    assert {type(payload) for payload in received} == {bytes}


async def test_a_name_may_be_any_text(backplanes):
    a, b = await backplanes.node("a"), await backplanes.node("b")
    subjects = [Subject("channel", endpoint, name) for endpoint in ("/ws", "/", "/a/{b}") for name in HOSTILE]
    received = {subject: await b.listen(subject) for subject in subjects}
    for number, subject in enumerate(subjects):
        a.backplane.send(subject, b"%d" % number)
    await eventually(lambda: all(received.values()))
    assert list(received.values()) == [[b"%d" % number] for number in range(len(subjects))]


async def test_only_those_that_listen_get_a_message(backplanes):
    a, b, c = [await backplanes.node(name) for name in "abc"]
    received, others = await b.listen(CARS), await c.listen(Subject("channel", "/other", "cars"))
    a.backplane.send(CARS, b"1")
    await eventually(lambda: received == [b"1"])
    b.backplane.ignore([CARS])
    again = await c.listen(CARS)
    a.backplane.send(CARS, b"2")
    await eventually(lambda: again == [b"2"])
    assert (received, others) == ([b"1"], [])


async def test_who_ignores_may_listen_again(backplanes):
    a, b = await backplanes.node("a"), await backplanes.node("b")
    first = await b.listen(CARS)
    b.backplane.ignore([CARS])
    second = await b.listen(CARS)
    a.backplane.send(CARS, b"1")
    await eventually(lambda: second == [b"1"])
    assert first == []


async def test_many_subjects_at_once(backplanes):
    a, b = await backplanes.node("a"), await backplanes.node("b")
    subjects = [Subject("channel", "/ws", f"room{number}") for number in range(2000)]
    received = await b.listen(*subjects)
    for number, subject in enumerate(subjects):
        a.backplane.send(subject, b"%d" % number)
    await eventually(lambda: len(received) == 2000)
    assert sorted(received) == sorted(b"%d" % number for number in range(2000))
    b.backplane.ignore(subjects)


async def test_a_receiver_may_send_listen_and_ignore(backplanes):
    a, b = await backplanes.node("a"), await backplanes.node("b")
    answers = await a.listen(Subject("node", "", "a"))
    received = []

    def receive(payload):
        received.append(payload)
        b.backplane.ignore([CARS])
        b.backplane.send(Subject("node", "", "a"), b"got " + payload)

    await b.backplane.listen({CARS: receive})
    a.backplane.send(CARS, b"1")
    await eventually(lambda: answers == [b"got 1"])
    assert received == [b"1"]


async def test_to_one_node_and_to_all(backplanes):
    a, b, c = [await backplanes.node(name) for name in "abc"]
    at_b = await b.listen(ALL, Subject("node", "", "b"))
    at_c = await c.listen(ALL, Subject("node", "", "c"))
    a.backplane.send(Subject("node", "", "b"), b"for b")
    a.backplane.send(ALL, b"for all")
    await eventually(lambda: len(at_b) == 2 and at_c)
    assert (sorted(at_b), at_c) == ([b"for all", b"for b"], [b"for all"])


async def test_users_are_reached_once_on_each_other_node(backplanes):
    a, b, c = [await backplanes.node(name) for name in "abc"]
    ann, bob = UserName("/ws", "ann"), UserName("/ws", "bob")
    inboxes = [await peer.listen(Subject("node", "", peer.key.id)) for peer in (a, b, c)]
    for peer in (a, b):
        await peer.backplane.claim([ann, bob])
    await c.backplane.claim([bob])
    a.backplane.route([ann], b"to ann")
    await eventually(lambda: inboxes[1] == [b"to ann"])
    a.backplane.route([bob], b"to bob")
    await eventually(lambda: inboxes[2] == [b"to bob"] and inboxes[1] == [b"to ann", b"to bob"])
    a.backplane.route([UserName("/ws", "nobody"), UserName("/other", "ann")], b"nowhere")
    for number in range(50):
        a.backplane.route([ann], b"%d" % number)
    await eventually(lambda: len(inboxes[1]) == 52)
    assert inboxes[1][2:] == [b"%d" % number for number in range(50)]
    assert inboxes[0] == []
    assert inboxes[2] == [b"to bob"]


async def test_a_renamed_node_keeps_its_inbox(backplanes):
    a, b = await backplanes.node("a"), await backplanes.node("b")
    inbox = await b.listen(Subject("node", "", "b"))
    b.backplane.rename(NodeKey("b", 2))
    await b.backplane.claim([UserName("/ws", "ann")])
    a.backplane.route([UserName("/ws", "ann")], b"hi")
    await eventually(lambda: inbox == [b"hi"])
    assert await a.backplane.find([UserName("/ws", "ann")]) == [[NodeKey("b", 2)]]


async def test_a_store_that_is_there_says_so_and_loses_nothing(backplanes):
    a = await backplanes.node("a")
    assert a.backplane.is_connected
    assert a.backplane.lost == 0
    assert (a.connected, a.reasons) == (1, [])
    assert "://" in a.backplane.url
