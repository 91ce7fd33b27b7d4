"""Every service of a running deployment killed in mid-round, the disk filled, the store cut off; what it cost."""
