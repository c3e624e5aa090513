"""The memory of this process."""

import resource


def resident_bytes() -> int:
    """Return the resident memory of this process; 0 if it is unknown."""
    try:
        with open("/proc/self/statm", "rb") as file:
            return int(file.read().split()[1]) * resource.getpagesize()
    except OSError:
        return 0
