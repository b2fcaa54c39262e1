"""The report of the paper's tables and figures beside those measured here."""
