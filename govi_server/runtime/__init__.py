"""Running a program on Twisted: ordered services, cooperative work, the clock, throttled warnings, templates."""
