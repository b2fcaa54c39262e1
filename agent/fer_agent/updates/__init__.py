"""Models from a signed repository: fetched, verified, and handed to activation.

catalog.py        what a repository offers, and which version this agent takes: pure
fetch.py          bytes from a web server that may be slow, broken or hostile
cache.py          downloaded content by its hash, and the parts of what is on its way
trusted_time.py   what time it is at least, on a board without a clock
client.py         The Update Framework's client with the three above
sync.py           `fer-agent models sync`: from the repository to a staged, whole version
report.py         what the last sync found, for the running agent to tell
"""
