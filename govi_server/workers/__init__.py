"""HTTP workers of a main process: they accept connections, and serve what the main process lets them cache."""
