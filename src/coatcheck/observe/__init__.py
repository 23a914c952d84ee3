"""What leaves the process for people to read: logs, the audit log, the state file."""
