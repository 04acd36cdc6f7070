"""Chains, the algebra of Gaussian fields, averages, and the layers of invertible maps."""
