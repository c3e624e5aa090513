"""Running a program on Twisted: services, the clock, cooperative work; independent of HTTP and departures."""
