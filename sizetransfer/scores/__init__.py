"""What one does with any score: training, sampling, tiling, responses, posteriors, linear references."""
