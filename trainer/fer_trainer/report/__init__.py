"""The report: the paper's tables and figures beside what was measured here."""
