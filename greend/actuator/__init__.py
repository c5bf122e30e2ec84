"""The small privileged process: turns power limits and CPU quotas for the daemon, and gives them back."""
