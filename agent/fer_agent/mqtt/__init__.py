"""The way to the broker: one link, who dials it, what waits for it, and the publisher in front."""
