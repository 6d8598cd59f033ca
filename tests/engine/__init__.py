"""Tests against vLLM itself, with a tiny checkpoint of the real architecture, on any CPU: ``scripts/test-engine``."""
