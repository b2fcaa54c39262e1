"""The stages of a frame between camera and publisher, with their records and ports."""
