"""The networks, the student's and the teachers', and their weights."""
