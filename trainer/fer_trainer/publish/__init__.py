"""A signed repository of models that any static web server can serve (The Update Framework).

`keys` and `roles` say who may sign what for how long; `releases` checks a model's folder;
`changes` works out new metadata, purely; `signing` signs it; `staging` puts files into the
repository's folder so that it is never half published; `repository` reads and verifies what is
there; `pending` carries an unfinished change from one machine to another; `summary` says all of it
in plain words.

Source: The Update Framework specification 1.0, https://theupdateframework.github.io/specification.
"""
