"""Boards and gateway requests shared with other nodes, through Valkey or Redis."""
