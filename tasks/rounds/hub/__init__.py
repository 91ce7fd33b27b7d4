"""What the hub does in one round: open it, collect and average the updates, close it."""
