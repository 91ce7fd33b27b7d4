"""What happens at a site in one round: validate its data, train, sanitise and upload, validate the global model."""
