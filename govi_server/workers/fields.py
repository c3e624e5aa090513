"""Header fields between a worker and the main process, which no client sends or receives."""

CHARGED = "Govi-Charged"
"""Of a request: its client was charged for the work that it causes."""

COST = "Govi-Cost"
"""Of a response without content: the cost to charge before the request is repeated with CHARGED."""

RESULT = "Govi-Result"
"""Of a response, for statistics: the cache result, and the stop, if any, after a space."""
