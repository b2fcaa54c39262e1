"""The board, the clock, files, logging, memory and systemd."""
