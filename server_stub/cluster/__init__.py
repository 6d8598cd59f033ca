"""Replicas behind Ray Serve: its configuration, and what runs inside Ray's own environment."""
