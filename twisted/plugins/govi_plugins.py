"""The twistd commands: nothing of govi_server is imported before its command is chosen."""

from twisted.application.service import ServiceMaker

govi_cache = ServiceMaker(
    "GOVI cache", "govi_server.tap", "Serve the next departures of a stop from memory.", "govi-cache"
)
govi_simulator = ServiceMaker(
    "GOVI simulator", "govi_server.simulator.tap", "Play a GOVI gateway over a made-up town.", "govi-simulator"
)
