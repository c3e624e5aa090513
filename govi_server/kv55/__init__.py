"""KV55, the interface to the GOVI gateway: its messages, and the gateway as a source of departures."""
