"""What a subscriber sees: `fer-agent watch`."""
