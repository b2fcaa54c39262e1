"""What `fer-agent doctor` checks."""
