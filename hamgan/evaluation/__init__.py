"""FID, Inception Score, KID, precision and recall on torch-fidelity's feature extractors."""
