"""What any job needs: logs, locks, devices, processes, seeds, code digests."""
