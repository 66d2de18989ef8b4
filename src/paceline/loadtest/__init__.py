"""Load tests: how fast does a server answer, at which load, and what did the answers cost?

A `Plan` says which steps to run; a `Generator` hands them to a client in a process of its own, which sends the requests
of a step and reports `samples`; a `Tally` sums them up; the outcome is a `Result`, which reports are drawn from.

    client/      the process that sends: its loop, connections, codecs
    requests/    what is sent: a server is asked, requests are made
    locust/      Locust in the place of our client
    terminal/    what somebody at a terminal sees, and the keys
    reporting/   what is made of a result: pages, summaries, gates
"""
