"""A worker process: python -m govi_server.workers NUMBER, started by the main process alone."""

from govi_server.workers.process import main

main()
