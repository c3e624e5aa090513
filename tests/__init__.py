"""The tests: unit tests without sockets or real time here, those over real sockets in integration/."""
