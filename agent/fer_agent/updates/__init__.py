"""Models from a signed repository: fetched, verified, and handed to activation.

catalog.py        the versions that a repository offers, and the choice among them
fetch.py          downloads with limits, retries and redirects; one request is in connection.py
cache.py          downloaded content by its hash, complete or in part
trusted_time.py   a lower bound of the time, on a board without a clock
client.py         The Update Framework's client with the three above
sync.py           `fer-agent models sync`: from the repository to a staged version
report.py         the last sync's result, for the running agent to publish
"""
