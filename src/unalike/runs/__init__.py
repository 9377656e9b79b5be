"""The folder of a run: its files, lock, status, failures and upload."""
