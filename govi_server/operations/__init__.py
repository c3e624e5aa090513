"""For the people who run it: what is going on, in figures, pages and a shell. Nothing of it on the public port."""
