"""What makes an update private before it leaves a site: mechanisms, accounting, noise and the ledger."""
