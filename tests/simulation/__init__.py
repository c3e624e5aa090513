"""Deterministic simulation of the whole program: ``make simulate``.

Faults of a server such as this one are orders of events that no test thought of. So the program, as ``makeService()``
starts it from a configuration file, runs here in a world in which nothing is real but its own code, and a seed
determines everything: when a client hangs up, what a gateway answers, which message of the feed is lost, when the
process is killed. An hour takes some ten seconds. The same seed gives the same world, byte for byte, so that each
failure can be repeated.

    scheduler.py           virtual time
    network.py             the kernel's side of sockets and epoll: latency, full buffers, pieces, half-close, resets
    zeromq.py              PUB/SUB: lost, repeated and reordered messages, reconnection, edge-triggered descriptors
    reactor.py             what the program uses of Twisted's reactor, with a wall clock that can be set
    node.py                a machine on which the program is started, stopped and killed
    balancer.py            which of several nodes a connection reaches
    engine.py              the engine that several nodes share, and its replica: slow, hung, lost, empty, full, wrong
    gateway.py             a gateway that is silent, slow, late, wrong, or refuses
    feed.py                a feed of two operators, and Model: a slow, obvious reading of what a process received
    gtfs.py                a server of GTFS files, which may be slow, cut off, of yesterday, or no files
    disk.py                a disk that becomes full, is slow, or loses the ends of files with its power
    users.py               displays, browsers, slow readers, clients that hang up, hostile ones, operators
    faults.py              what goes wrong and when: a list, of which a failure is shrunk to the fewest
    oracles.py             the rules of connections and of the endpoint for operators, one class each
    http_oracles.py        the rules of every response
    gateway_oracles.py     the rules of gateways: when they are asked, and what of their answers clients see
    statistics_oracles.py  the rules of the statistics log and the metrics
    documents.py           what the documents of the feed show, whatever their form
    feed_oracles.py        the rules of the feed's departures
    shared_oracles.py      the rules of several nodes
    world.py               all of it for one seed, and the hash of what the clients received
    planted/               faults that are planted into the program to see whether the rules find them

Two of five worlds have two or three nodes, without the feed, which is not shared. A process has a number of its own,
the epoch, whichever node it runs on.

Twisted's own transports, ports and clients run on the simulated sockets, and so do the program's poller, listener and
immediate writes. What govi_server takes from the operating system besides the reactor is in
govi_server/runtime/outside.py. Files are real ones in a temporary directory; so is the process that compiles GTFS.

A rule looks at what users, gateways and operators see, never into the program. It reports with found(); the first
report ends the world. docs/testing.md says how to add a rule, a fault or a user.
"""
