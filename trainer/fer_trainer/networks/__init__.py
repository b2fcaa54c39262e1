"""Networks: the student in one file, everything else in the zoo."""
