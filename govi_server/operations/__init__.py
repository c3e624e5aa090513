"""What operators see and do: health, metrics, status, snapshots, a shell. Nothing of it is on the public port."""
