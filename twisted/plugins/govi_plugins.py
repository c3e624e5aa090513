"""The twistd commands. Their packages are imported when the command is chosen."""

from twisted.application.service import ServiceMaker

govi_cache = ServiceMaker(
    "GOVI cache", "govi_server.tap", "Serve the next departures of a stop from memory.", "govi-cache"
)
govi_simulator = ServiceMaker(
    "GOVI simulator",
    "govi_server.simulator.tap",
    "Simulate a GOVI gateway and a live feed of a fictional town.",
    "govi-simulator",
)
govi_feed_proxy = ServiceMaker(
    "GOVI feed proxy",
    "govi_server.feed_proxy.tap",
    "Subscribe to the live feed once, for any number of govi-cache servers.",
    "govi-feed-proxy",
)
