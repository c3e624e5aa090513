"""Prints the name of a stop and its state, with a client generated from /openapi.json."""

import sys

from govi_cache_client import Client
from govi_cache_client.api.departures import get_board
from govi_cache_client.api.stops import get_places

client = Client(base_url=sys.argv[1], headers={"Accept": "application/json"})
board = get_board.sync(client=client, timing_point_codes="57330430", limit=2)
print(board.stops[0].name, board.stops[0].state)
print(get_places.sync(client=client, q="").status)
