"""A signed repository of models that any static web server can serve (The Update Framework).

`keys` and `roles` define who may sign what for how long; `releases` checks a model's folder;
`changes` makes new metadata without reading or writing files; `signing` signs it; `staging` puts
files into the repository's folder so that it is never half published; `repository` reads and
verifies the folder; `pending` stores a change that other keys still have to sign; `last_published`
refuses versions that go back; `summary` describes all of it for people.

Source: The Update Framework specification 1.0, https://theupdateframework.github.io/specification.
"""
