"""Write the licences of locked dependencies, as their packages declare them; exit with status 1 if one has none."""

import re
import sys
from importlib.metadata import PackageNotFoundError, metadata
from pathlib import Path


def licence(name: str) -> str:
    """Return the licence of an installed package: SPDX expression, classifiers, or the first line of its text."""
    fields = metadata(name)
    if expression := fields.get("License-Expression"):
        return str(expression)
    classifiers = fields.get_all("Classifier") or []
    names = [text.rpartition(" :: ")[2] for text in classifiers if text.startswith("License :: ")]
    return ", ".join(names) or (fields.get("License") or "").partition("\n")[0]


missing = []
for line in Path(sys.argv[1]).read_text("utf-8").splitlines():
    if match := re.match(r"([A-Za-z0-9._-]+)==(\S+)", line):
        try:
            text = licence(match[1])
        except PackageNotFoundError:  # of another platform
            continue
        print(f"{match[1]} {match[2]}: {text}")
        if not text:
            missing.append(match[1])
if missing:
    sys.exit(f"no licence is declared by {', '.join(missing)}")
