"""The history: one SQLite file, written by the daemon and asked by every command.

========== ==========================================================================
schema     the tables
engine     `Store`: opens the file, one transaction at a time in, any number out
failures   what SQLite says, in words that a person can act on
migrate    brings an older file up to date
marks      how far each resolution has been rolled up and from where on it is kept
cover      which resolution answers for which stretch of time (pure)
writes     `Batch` and `write`: what the daemon learned since the last flush
dimensions the numbers under which components, consumers, meters and counters are filed
rollup     seconds to minutes to hours to days, and what may be forgotten
ledger     the rows of any stretch of time, each joule once
queries    energy by time, component, consumer
positions  where the raw counters stood, and what they grew by
jobs       jobs and the decisions about them
documents  limits and bounds as JSON in a column
profiles   what a level cost an earlier run of the same command
budgets    what all jobs together may use in a day or a month
rules      the policy rules that were set by command
leases     who keeps a job at a level, where that outlives a connection
check      does the ledger add up
========== ==========================================================================

Functions take a `Connection` of `Store.write` or `Store.read`; answers are frozen values, never rows.
"""
