"""Write a training run as one HTML file."""
