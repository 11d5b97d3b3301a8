"""What happens to data without looking at the network: noise, common corruptions, and the protocols that clip it."""
