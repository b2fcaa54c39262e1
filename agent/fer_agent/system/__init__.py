"""The board, the clock, files, logging and systemd."""
