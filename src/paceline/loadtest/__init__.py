"""Load tests: how fast does a server answer, at which load, and what did the answers cost?

A `Plan` says which steps to run; a `Generator`, in a process of its own, sends the requests of a step and reports
`samples`; a `Tally` sums them up; the outcome is a `Result`, which reports are drawn from.
"""
