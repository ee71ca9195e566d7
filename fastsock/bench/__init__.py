"""``fastsock bench``: how fast a server is, and whether every delivery that it owed has come.

`crowd` is thousands of clients in a process of its own, `tally` what they have counted, `targets` the server that they
talk to, `footprint` what that cost it, `scenarios` what is played, `report` what is shown of it.
"""
