"""Response bodies for programs: OVapi, SIRI, and boards as JSON or lines of text."""
