"""What the product does, between the transports and the actors."""
