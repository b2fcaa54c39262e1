"""The demo: scene, agent, broker and subscriber in one process."""
