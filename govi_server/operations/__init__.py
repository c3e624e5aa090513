"""Tools of operators: health, metrics, status, history, snapshots, the manhole. Never on the public port."""
