"""HTTP/1.1: parsing requests, the states and deadlines of a connection, sending responses, limits of clients."""
