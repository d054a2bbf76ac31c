"""The API of accounts: the staff's half and the subscriber's own."""
