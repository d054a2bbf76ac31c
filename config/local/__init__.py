"""The embedded PostgreSQL and Valkey of one data folder, and the processes that use them.

Only the defaults need this package: with DATABASE_URL and BROKER_URL set nothing here runs.
"""
